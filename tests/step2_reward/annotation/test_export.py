"""Where an export may be written, and what a restart tells."""

import json

import pytest

from common.errors import UserError
from common.files import read_json_lines, write_json_lines
from step2_reward.annotate import AnnotateArguments, main
from step2_reward.annotation.items import read_items
from step2_reward.annotation.project import Project, Rules
from step2_reward.annotation.storage import Storage
from tests.step2_reward.annotation.projects import save

NAMES = ["anna", "ben", "carla"]
SAMPLES = [{"prompt": f"p{i}", "responses": ["a", "bb"]} for i in range(3)]


def start(run, **settings):
    main(AnnotateArguments(run=str(run), port=0, **{"labelers": NAMES} | settings))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose server was started once, with two gold questions, and nobody has answered."""
    monkeypatch.setattr("step2_reward.annotate.serve", lambda *_, **__: None)
    run = tmp_path / "run"
    write_json_lines(run / "sample" / "samples.jsonl", SAMPLES)
    gold = [{"prompt": f"g{i}", "responses": ["a", "bb"], "orders": [[0, 1]]} for i in range(2)]
    write_json_lines(tmp_path / "gold.jsonl", gold)
    start(run, gold=str(tmp_path / "gold.jsonl"))
    return run


def rank(run, **more):
    """Anna answers one prompt."""
    storage = Storage(run / "annotate" / "labels.sqlite")
    project = Project(read_items(run / "sample" / "samples.jsonl"), [], storage, Rules())
    saved = save(project, "anna", project.next_page("anna"), **more)
    storage.close()
    return saved


def to(run, path):
    start(run, export=str(path), labelers=[])


def test_only_an_earlier_export_is_replaced(run, tmp_path):
    rank(run)
    own = tmp_path / "own.jsonl"
    write_json_lines(own, [{"prompt": "mine", "responses": ["x", "y"], "orders": [[0, 1]]}])
    (run / "link.jsonl").hardlink_to(run / "sample" / "samples.jsonl")
    (run / "metrics.jsonl").touch()
    (tmp_path / "folder").mkdir()
    write_json_lines(tmp_path / "second_unranked.jsonl", [{"a": 1}])
    database = run / "annotate" / "labels.sqlite"
    kept = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file() and f.suffix != ".sqlite"}
    for path, says in [
        (run / "sample" / "samples.jsonl", "reads its prompts from"),
        (run / "link.jsonl", "reads its prompts from"),
        (tmp_path / "gold.jsonl", "reads its prompts from"),  # of the start before
        (database, "keeps its own files"),
        (run / "annotate" / "tokens.json", "keeps its own files"),
        (run / "annotate" / "not_there_yet.txt", "keeps its own files"),
        (run / "metrics.jsonl", "no export of rankings"),
        (own, "no export of rankings"),
        (tmp_path / "second.jsonl", "second_unranked.jsonl: is there already"),
        (tmp_path / "folder", "is a folder, but"),
        (own / "below.jsonl", "cannot be written: "),
    ]:
        with pytest.raises(UserError, match=says):
            to(run, path)
    assert all(file.read_bytes() == content for file, content in kept.items())
    with Storage(database)._transaction() as db:
        assert db.execute("SELECT COUNT(*) FROM answers").fetchone() == (1,)


def test_exports_that_are_written(run, tmp_path):
    rank(run)
    (tmp_path / "empty.jsonl").touch()
    for path in (tmp_path / "empty.jsonl", run / "rankings.jsonl", run / "annotate" / "r.jsonl"):
        for _ in range(2):
            to(run, path)
            assert [row["labelers"] for row in read_json_lines(path)] == [["anna"]]


def test_samples_that_are_an_earlier_export_are_not_written_over(run, tmp_path):
    rank(run)
    to(run, tmp_path / "round_1.jsonl")
    again = {"samples": str(tmp_path / "round_1.jsonl"), "export": str(tmp_path / "round_1.jsonl")}
    with pytest.raises(UserError, match="reads its prompts from"):
        start(run, **again)


def test_nothing_is_exported_where_nobody_has_answered(run, tmp_path):
    with pytest.raises(UserError, match="nobody has answered anything yet"):
        to(run, tmp_path / "new.jsonl")
    refused = tmp_path / "refused"  # what a command left that was refused
    write_json_lines(refused / "sample" / "samples.jsonl", SAMPLES)
    (refused / "annotate").mkdir()
    (refused / "annotate" / "labels.sqlite").touch()
    with pytest.raises(UserError, match="nobody has answered anything yet"):
        to(refused, tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()


def test_a_restart_tells_what_it_changes(run, tmp_path, capsys):
    gold = str(tmp_path / "gold.jsonl")
    capsys.readouterr()
    start(run, gold=gold)
    assert "from now on" not in capsys.readouterr().out
    start(run, labelers_per_prompt=2)
    said = capsys.readouterr().out
    assert "2 gold questions are no longer asked; their answers stay" in said
    assert "prompts are given to 2 instead of 3 labelers from now on" in said
    start(run, labelers_per_prompt=2, gold=gold)
    assert "2 gold questions are new" in capsys.readouterr().out


def test_other_samples_are_taken_until_somebody_has_answered(run):
    samples = run / "sample" / "samples.jsonl"
    write_json_lines(samples, SAMPLES[:2])
    start(run)
    rank(run)
    write_json_lines(samples, SAMPLES)
    with pytest.raises(UserError, match="there were 2 prompts, and now there are 3"):
        start(run)


def test_a_gold_question_that_is_a_sample_is_asked_once(run, tmp_path, capsys):
    gold = tmp_path / "both.jsonl"
    write_json_lines(gold, [{"prompt": "p1", "responses": ["bb", "a"], "orders": [[0, 1]]}])
    capsys.readouterr()
    start(run, gold=str(gold))
    assert "1 of the prompts are gold questions too" in capsys.readouterr().out
    storage = Storage(run / "annotate" / "labels.sqlite")
    samples = read_items(run / "sample" / "samples.jsonl")
    project = Project(samples, read_items(gold, gold=True), storage, Rules(gold_every=1))
    asked = []
    while page := project.next_page("anna"):
        asked.append(page["messages"][0]["content"])
        save(project, "anna", page)
    assert sorted(asked) == ["p0", "p1", "p2"]
    assert json.loads(storage.read_note("settings"))["labelers_per_prompt"] == 3
    storage.close()
