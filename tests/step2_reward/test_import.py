"""The import as a stage: what joins the rankings file, twice and with other files, and bad rows."""

import json
import subprocess

import pytest

from common.config.arguments import RunArguments
from common.errors import UserError
from common.files import take_lock
from common.training.stage import Stage
from step2_reward import import_rankings, pairs
from step2_reward.import_rankings import ImportArguments
from step2_reward.pairs import PairsArguments
from tests.common.data.foreign_rows import annotation, ranker, ranks, record_1, task
from tests.inputs import write
from tests.stages import ROOT, environment

PLAIN = {
    "prompt": "q",
    "responses": ["a", "b", "c"],
    "orders": [[2, [0, 1]], [0, 1]],
    "labelers": ["ann", "ai:judge"],
}


def run_import(tmp_path, *files, **settings):
    """The result, and the rows of the rankings file."""
    run = RunArguments(run=str(tmp_path / "run"), progress=False)
    stage = Stage("import", run, {})
    import_rankings.main(stage, run, ImportArguments(files=list(files), **settings))
    result = json.loads((stage.folder / "result.json").read_text())
    lines = open(result["rankings"], encoding="utf-8").read().splitlines()
    return result, [json.loads(line) for line in lines]


def test_a_plain_file_comes_through_as_it_is(tmp_path, capsys):
    result, rows = run_import(tmp_path, write(tmp_path, [PLAIN], "plain.jsonl"))
    assert rows == [PLAIN]
    assert result["imported"] == {"orders added": 2}
    assert (result["prompts"], result["labelers"], result["ai_labelers"]) == (1, 2, 1)
    assert "2 orders by 2 labelers (1 of them AI feedback) for 1 prompts" in capsys.readouterr().out


def test_the_same_file_twice_changes_nothing(tmp_path):
    """Not even the file's time; and a copy under another name is the same, too."""
    studio = task(annotation(ranker({"rank": ["mdn", "wiki", "blog"]})), facts={"domain": "x"})
    files = [
        write(tmp_path, [PLAIN], "plain.jsonl"),
        write(tmp_path, [studio], "studio.jsonl"),
        write(tmp_path, [record_1(("u", ranks(reply_1=1, reply_2=1), "submitted"))], "a.jsonl"),
    ]
    first, rows = run_import(tmp_path, *files)
    target = tmp_path / "run/import/rankings.jsonl"
    before = target.read_bytes(), target.stat().st_mtime_ns
    assert first["imported"] == {"orders added": 4} and len(rows) == 2  # studio's and a's prompt
    copy = write(tmp_path, [PLAIN], "copy.jsonl")
    second, _ = run_import(tmp_path, *files[::-1], copy, files[0])
    assert (target.read_bytes(), target.stat().st_mtime_ns) == before
    assert second["imported"] == {"orders there already": 8}


def test_newer_orders_replace_older_ones_and_others_are_kept(tmp_path):
    old = write(tmp_path, [PLAIN], "old.jsonl")
    run_import(tmp_path, old)
    again = {**PLAIN, "responses": ["c", "b", "a"], "orders": [[2, 1, 0]], "labelers": ["ann"]}
    new = write(tmp_path, [again, {**PLAIN, "prompt": "r"}], "new.jsonl")
    result, rows = run_import(tmp_path, new)
    assert result["imported"] == {
        "orders added": 2,
        "orders replaced by the labeler's later ones": 1,
    }
    assert rows == [{**PLAIN, "orders": [[0, 1, 2], [0, 1]]}, {**PLAIN, "prompt": "r"}]


def test_a_rankings_file_elsewhere_and_labelers_without_names(tmp_path):
    unnamed = {k: v for k, v in PLAIN.items() if k != "labelers"}
    file = write(tmp_path, [unnamed], "team.jsonl")
    target = tmp_path / "people" / "rankings.jsonl"
    _, rows = run_import(tmp_path, file, rankings=str(target))
    assert rows[0]["labelers"] == ["team:1", "team:2"] and target.is_file()
    _, rows = run_import(tmp_path, file, rankings=str(target), labeler="crew")
    assert rows[0]["labelers"] == ["team:1", "team:2", "crew:1", "crew:2"]


def test_a_bad_row_leaves_the_rankings_as_they_were(tmp_path):
    run_import(tmp_path, write(tmp_path, [PLAIN], "good.jsonl"))
    target = tmp_path / "run/import/rankings.jsonl"
    before = target.read_bytes()
    bad = write(
        tmp_path, [{**PLAIN, "prompt": "new"}, {**PLAIN, "orders": [[9, 0], [0]]}], "bad.jsonl"
    )
    with pytest.raises(UserError) as caught:
        run_import(tmp_path, bad)
    assert f"{bad}:2: field 'orders[0]' has the index 9" in str(caught.value)
    assert target.read_bytes() == before
    assert not (tmp_path / "run/import/result.json").exists()


def test_what_is_left_out_is_told(tmp_path, capsys):
    skipped = task(annotation(ranker({"rank": ["mdn", "blog"]}), was_cancelled=True))
    file = write(tmp_path, [skipped], "skipped.jsonl")
    with pytest.raises(UserError, match="no order was found .1 skipped annotations"):
        run_import(tmp_path, file)
    lists = record_1(("u", ["reply-2", "reply-1"], "submitted"), ("v", ["reply-1"], "draft"))
    result, _ = run_import(tmp_path, file, write(tmp_path, [lists], "lists.jsonl"))
    said = capsys.readouterr().out
    assert result["left_out"] == {"skipped annotations": 1, "drafts": 1}
    assert "1 drafts" in said and "1 skipped annotations" in said
    assert "1 lists without ranks, read as best first" in said


def test_nothing_to_import(tmp_path):
    with pytest.raises(UserError, match="name the files with --files"):
        run_import(tmp_path)


def test_the_command_waits_for_no_other_import_of_the_same_file(tmp_path):
    """Two would lose each other's orders."""
    target = tmp_path / "run/import/rankings.jsonl"
    target.parent.mkdir(parents=True)
    held = take_lock(target.with_name(".rankings.jsonl.lock"))
    file = write(tmp_path, [PLAIN], "plain.jsonl")
    command = ["bash", "step2_reward/import.sh", "--files", file, "--run", str(tmp_path / "run")]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    held.close()
    assert done.returncode == 2, done.stderr
    assert "import: error: " in done.stderr and "another process" in done.stderr
    assert not target.exists()


def test_rows_without_an_order_stay_in_the_file_that_is_merged_into(tmp_path):
    """Until somebody ranks their responses."""
    nobody = {**PLAIN, "prompt": "r", "orders": [None], "labelers": ["ann"], "note": 7}
    too_little = {**PLAIN, "prompt": "s", "orders": [[1]], "labelers": ["bob"]}
    target = write(tmp_path, [nobody, PLAIN, too_little], "all.jsonl")
    new = write(tmp_path, [{**PLAIN, "labelers": ["cy", "dan"]}], "new.jsonl")
    expected = {
        **PLAIN,
        "orders": [[2, [0, 1]], [0, 1]] * 2,
        "labelers": ["ann", "ai:judge", "cy", "dan"],
    }
    result, rows = run_import(tmp_path, new, rankings=target)
    left = [
        {**nobody, "orders": [], "labelers": [], "cannot_judge": [{"labeler": "ann"}]},
        {**too_little, "orders": [], "labelers": []},
    ]
    assert rows == [expected, *left] and result["prompts"] == 1
    before = (tmp_path / "all.jsonl").read_bytes()
    run_import(tmp_path, new, rankings=target)
    assert (tmp_path / "all.jsonl").read_bytes() == before
    late = {**PLAIN, "prompt": "r", "orders": [[0, 1]], "labelers": ["eve"]}
    _, rows = run_import(tmp_path, write(tmp_path, [late], "late.jsonl"), rankings=target)
    late["cannot_judge"], late["note"] = left[0]["cannot_judge"], 7
    assert rows == [expected, late, left[1]]


def test_who_could_not_judge_comes_along_and_is_counted(tmp_path, capsys):
    """What the annotation's export writes beside the rankings is a file like any other."""
    nobody = {**PLAIN, "orders": [], "labelers": [], "cannot_judge": [{"labeler": "dan"}]}
    alone = write(tmp_path, [{**nobody, "prompt": "r"}, nobody], "rankings_unranked.jsonl")
    result, rows = run_import(tmp_path, alone)
    assert result["cannot_judge"] == 2 and result["prompts"] == 0
    assert result["left_out"] == {"prompts that nobody ranked": 2}
    result, rows = run_import(tmp_path, write(tmp_path, [PLAIN], "plain.jsonl"))
    assert rows == [{**PLAIN, "cannot_judge": nobody["cannot_judge"]}, {**nobody, "prompt": "r"}]
    assert "for 1 prompts, and 2 times somebody could not judge" in capsys.readouterr().out
    before = open(result["rankings"], "rb").read()
    result, _ = run_import(tmp_path, alone)
    assert open(result["rankings"], "rb").read() == before


def test_files_of_one_name_are_told_apart(tmp_path):
    """Else one team's first labeler would replace the other's."""
    unnamed = {k: v for k, v in PLAIN.items() if k != "labelers"}
    for folder, orders in (("north", [[0, 1, 2]]), ("south", [[2, 1, 0]])):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, [{**unnamed, "orders": orders}], "team.jsonl")
    files = [str(tmp_path / folder / "team.jsonl") for folder in ("north", "south")]
    for given in (files, files[::-1]):
        _, (row,) = run_import(tmp_path, *given)
        assert row["labelers"] == ["north/team.jsonl:1", "south/team.jsonl:1"]
        assert row["orders"] == [[0, 1, 2], [2, 1, 0]]


def test_a_folder_is_no_rankings_file(tmp_path):
    file = write(tmp_path, [PLAIN], "plain.jsonl")
    with pytest.raises(UserError, match="is a folder"):
        run_import(tmp_path, file, rankings=str(tmp_path))


def test_the_pairs_stage_says_which_rankings_there_are(tmp_path):
    run_import(tmp_path, write(tmp_path, [PLAIN], "plain.jsonl"))
    run = RunArguments(run=str(tmp_path / "run"), progress=False)
    with pytest.raises(UserError, match=r"rank/rankings.jsonl: no such file; .*import/rankings"):
        pairs.main(Stage("pairs", run, {}), run, PairsArguments())
