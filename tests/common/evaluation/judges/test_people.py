"""People's ratings: made for the annotation pages, labeled there, exported, and read back."""

import json
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

import pytest

from common.errors import UserError
from common.evaluation.judges.__main__ import main
from common.evaluation.judges.answers import Question
from common.evaluation.judges.people import NO_ANSWER, hidden
from common.files import read_json_lines, write_json_lines
from step2_reward.annotate import AnnotateArguments
from step2_reward.annotate import main as annotate
from step2_reward.annotation.export import split_rows
from step2_reward.annotation.items import read_items
from step2_reward.annotation.project import Project, Rules
from step2_reward.annotation.storage import Storage
from tests.step2_reward.annotation.projects import save

NAMES = "clarity accuracy completeness safety courtesy comfortableness conciseness context".split()
POINTS = {"s": 0, "r": 2, "b": 1}
"""By the first letter of an answer."""


def label(run, labelers=("anna", "ben"), rated=True):
    """Ranks and rates all prompts by `POINTS` through the pages' own project; the export."""
    folder = run / "evaluation/judges/people"
    project = Project(
        read_items(folder / "samples.jsonl"),
        [],
        Storage(folder / "annotate" / "labels.sqlite"),
        Rules(per_prompt=len(labelers)),
    )
    for labeler in labelers:
        rates = rated if isinstance(rated, bool) else labeler in rated
        while page := project.next_page(labeler):
            given = [POINTS[text[0]] for text in page["responses"]]
            order = [[i for i, p in enumerate(given) if p == g] for g in sorted(set(given))[::-1]]
            ratings = [dict.fromkeys(NAMES, p) for p in given] if rates else []
            save(project, labeler, page, order, ratings=ratings)
    rows, _ = split_rows(project)
    project.storage.close()
    write_json_lines(folder / "ratings.jsonl", rows)
    return folder / "ratings.jsonl"


def read(run, export):
    main(["people", "--run", str(run), "--ratings", str(export)])
    return json.loads((run / "evaluation/criteria.json").read_text())["judges"]


def test_from_answers_to_the_table(answered, capsys):
    main(["people", "--run", str(answered)])
    said = capsys.readouterr().out
    assert "8 prompts, answers in a hidden order" in said and "--labelers NAME" in said
    (table,) = read(answered, label(answered))
    assert (table["kind"], table["title"]) == ("people", "people (2 labelers)")
    assert table["labelers"] == 2 and table["prompts"] == 8 and table["facts"]["labelers"] == []
    seen = table["splits"]["seen"]
    means = {m: rows["overall"]["mean"] for m, rows in seen["models"].items()}
    # On prompts 0, one of four in each split, the best of four is SFT's answer and gets its points.
    assert means == pytest.approx({"sft": 0.0, "rlhf": 100.0, "best_of_4": 37.5})
    counts = {
        (p["model"], p["other"], p["by"]): (p["wins"], p["ties"], p["losses"])
        for p in seen["pairs"]
    }
    for by in ("score", "order"):
        assert counts["rlhf", "sft", by] == (4, 0, 0)
        assert counts["best_of_4", "sft", by] == (3, 1, 0)
        assert counts["best_of_4", "rlhf", by] == (0, 0, 4)
    assert table["facts"]["kendalls_w"] == 1.0 and table["facts"]["kendalls_w_prompts"] == 8


def test_the_file_for_labelers_does_not_tell_who_wrote_what(answered):
    main(["people", "--run", str(answered)])
    folder = answered / "evaluation/judges/people"
    rows = read_json_lines(folder / "samples.jsonl")
    assert all(row.keys() == {"item", "prompt", "responses"} for row in rows)
    assert all(row["item"].isalnum() and len(row["item"]) == 12 for row in rows)
    items = json.loads((folder / "key.json").read_text())["items"]
    assert items.keys() == {row["item"] for row in rows}


def test_the_order_says_nothing():
    firsts = Counter()
    for index in range(300):
        question = Question("s", index, "q", {"sft": "a", "rlhf": "b", "dpo": "c"})
        _, texts, writers = hidden(question, 7)
        assert {w[0]: t for t, w in zip(texts, writers, strict=True)} == question.answers
        firsts[writers[0][0]] += 1
    assert all(70 < firsts[model] < 130 for model in ("sft", "rlhf", "dpo"))


def test_same_and_empty_answers():
    _, texts, writers = hidden(Question("s", 0, "q", {"sft": "a", "rlhf": "b", "dpo": "a"}), 0)
    assert dict(zip(texts, writers, strict=True)) == {"a": ["sft", "dpo"], "b": ["rlhf"]}
    _, texts, writers = hidden(Question("s", 0, "q", {"sft": "", "rlhf": " \n", "dpo": "x"}), 0)
    assert dict(zip(texts, writers, strict=True)) == {NO_ANSWER: ["sft", "rlhf"], "x": ["dpo"]}
    # A page ranks two at least: where all are the same, that one appears twice.
    _, texts, writers = hidden(Question("s", 0, "q", {"sft": "a", "rlhf": "a"}), 0)
    assert texts == ["a", "a"] and writers == [["sft", "rlhf"]] * 2


def test_simulated_labelers_are_called_so_and_kept_apart(answered):
    main(["people", "--run", str(answered)])
    tables = read(answered, label(answered, ("anna", "simulated:1", "simulated:2")))
    assert [(t["kind"], t["labelers"]) for t in tables] == [("people", 1), ("simulated", 2)]
    assert tables[1]["title"] == "simulated labelers, not people (2 labelers)"
    page = (answered / "evaluation/criteria.md").read_text()
    assert "## By people (1 labeler)" in page
    assert "## By simulated labelers, not people (2 labelers)" in page
    export = answered / "evaluation/judges/people/ratings.jsonl"
    lists = ("orders", "labelers", "ratings", "comments", "seconds", "saved", "revisions", "shown")
    rows = read_json_lines(export)
    write_json_lines(export, [r | {name: r[name][:1] for name in lists} for r in rows])
    assert [t["kind"] for t in read(answered, export)] == ["people"]  # they are not there any more


def test_a_language_model_on_the_pages_is_no_person(answered):
    main(["people", "--run", str(answered)])
    (table,) = read(answered, label(answered, ("ai:m",)))
    assert (table["kind"], table["title"]) == ("ai", "AI judge m on the pages")


def test_the_same_command_goes_on_and_another_choice_is_refused_once_people_have_begun(answered):
    folder = answered / "evaluation/judges/people"
    main(["people", "--run", str(answered), "--limit", "1"])
    main(["people", "--run", str(answered), "--limit", "2"])  # nobody has begun
    before = (folder / "samples.jsonl").read_text()
    assert len(before.splitlines()) == 4
    label(answered)
    main(["people", "--run", str(answered), "--limit", "2"])
    with pytest.raises(UserError, match="people have begun to label here"):
        main(["people", "--run", str(answered), "--limit", "3"])
    assert (folder / "samples.jsonl").read_text() == before


def test_orders_without_ratings_are_not_enough(answered):
    main(["people", "--run", str(answered)])
    with pytest.raises(UserError, match="holds no rating of a criterion"):
        read(answered, label(answered, rated=False))


def test_who_only_ranked_did_not_rate(answered, capsys):
    main(["people", "--run", str(answered)])
    export = label(answered, ("anna", "ben", "simulated:1"), rated=("anna",))
    people, simulated = read(answered, export)
    assert people["labelers"] == 1 and people["title"] == "people (1 labeler)"
    assert people["facts"]["orders_without_ratings"] == 8
    assert simulated["title"] == "simulated labelers, not people (orders only)"
    said = capsys.readouterr().out
    assert "(1 labeler); 8 of 16 orders came without ratings (1 labeler rated nothing)" in said
    assert "(orders only); 8 of 8 orders came without ratings" in said


def test_a_server_that_was_only_started_is_no_beginning(answered, monkeypatch, capsys):
    monkeypatch.setattr("step2_reward.annotate.serve", lambda *_, **__: None)
    folder = answered / "evaluation/judges/people"
    for limit in ("1", "2"):
        main(["people", "--run", str(answered), "--limit", limit])
        samples = str(folder / "samples.jsonl")
        annotate(AnnotateArguments(str(folder), samples=samples, labelers=["a", "b", "c"], port=0))
        assert f"annotate: {2 * int(limit)} prompts" in capsys.readouterr().out
    with held_lock(folder / "annotate"), pytest.raises(UserError, match="is at work"):
        main(["people", "--run", str(answered), "--limit", "3"])
    label(answered)
    with pytest.raises(UserError, match=r"people have begun to label here \(8 answers\)"):
        main(["people", "--run", str(answered), "--limit", "3"])


@contextmanager
def held_lock(folder):
    """As a server in another process holds it."""
    program = (
        "import sys; from pathlib import Path; from common.files import take_lock\n"
        "lock = take_lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, str(folder / ".lock")]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield
        process.stdin.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"item": "0123456789ab"}, "is of no prompt of"),
        ({"ratings": [[{"clarity": 3}, {}]]}, "points from 0 to 2"),
        ({"ratings": [[{"charm": 1}, {}]]}, "points from 0 to 2"),
        ({"ratings": [[{"clarity": 1}]]}, "an object for each of 2 responses"),
        ({"orders": [[0, 7]]}, "index 7"),
    ],
)
def test_an_export_that_cannot_be_read(tmp_path, row, write_responses, change, said):
    rows = [row("seen", 0, "sft", "s"), row("seen", 0, "rlhf", "r")]
    run = write_responses(tmp_path, rows)
    main(["people", "--run", str(run)])
    export = label(run, ("anna",))
    (exported,) = read_json_lines(export)
    write_json_lines(export, [exported | change])
    with pytest.raises(UserError, match=said):
        read(run, export)


def test_without_the_key_nobody_knows_who_wrote_what(answered):
    main(["people", "--run", str(answered)])
    export = label(answered)
    (answered / "evaluation/judges/people/key.json").unlink()
    with pytest.raises(UserError, match="says who wrote which answer"):
        read(answered, export)
