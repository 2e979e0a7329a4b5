"""The same command again: a stage is done, goes on, or refuses to mix or wipe what is there."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from common.config.arguments import RunArguments, ZeroArguments
from common.errors import UserError
from common.training.resume.folders import Label, partial_folder, publish, write_manifest
from common.training.resume.identity import read_identity, unchanged
from common.training.stage import Finished, Stage
from tests.stages import ROOT


@pytest.fixture
def here(tmp_path):
    (tmp_path / "data.jsonl").write_text("rows\n")
    return tmp_path


def begin(here, run=None, **changes) -> Stage:
    arguments = RunArguments(run=str(here / "run"), **(run or {}))
    settings = {"rate": 0.1, **changes}
    stage = Stage("sft", arguments, {**settings, "progress": True}, settings)
    stage.begin([str(here / "data.jsonl")])
    stage._lock.close()  # the process, as it were, has ended
    return stage


def checkpoint(here, step=1):
    root = here / "run" / "sft" / "checkpoints"
    folder = partial_folder(root, Label(step))
    folder.mkdir(parents=True)
    write_manifest(folder, {}, {"step": step})
    publish(root, Label(step))
    return root / str(Label(step))


def done(here):
    (here / "run" / "sft" / "result.json").write_text("{}")
    (here / "run" / "sft" / "metrics.jsonl").write_text("{}\n")


def test_a_new_stage_notes_what_it_was_begun_with(here):
    begin(here)
    record = json.loads((here / "run/sft/begun.json").read_text())
    assert record["settings"] == {"rate": 0.1}
    assert list(record["inputs"]) == [str(here / "data.jsonl")]
    assert (here / "run/sft/config.yaml").read_text() == "rate: 0.1\nprogress: true\n"


def test_what_is_made_without_checkpoints_is_neither_mixed_nor_kept_when_it_starts_over(here):
    made = here / "run/sft/answers"

    def again(run=None, **changes):
        arguments = RunArguments(run=str(here / "run"), **(run or {}))
        stage = Stage("sft", arguments, changes, {"rate": 0.1, **changes})
        stage.begin([])
        stage._lock.close()

    again()
    made.mkdir()
    again()
    assert made.is_dir()
    with pytest.raises(UserError, match="rate was 0.1, is 0.2"):
        again(rate=0.2)
    again({"allow_changes": ["rate"]}, rate=0.2)
    assert made.is_dir()
    again({"on_change": "rerun", "allow_changes": []}, rate=0.2)
    (here / "run/sft/result.json").write_text("{}")
    again({"on_change": "rerun"}, rate=0.3)  # its pieces know what they depend on
    assert made.is_dir() and not (here / "run/sft/result.json").exists()
    again({"fresh": True}, rate=0.2)
    assert not made.exists()


def test_a_result_has_the_planned_peak_beside_the_measured_one(here, capsys):
    stage = begin(here)
    totals = {"forward": 2**20, "backward": 3 * 2**20}
    stage.plan = lambda: SimpleNamespace(
        peak=3 * 2**20, worst="backward", totals=totals, seconds=None
    )
    held = b"x" * 2**25  # 32 MB that the stage takes
    stage.finish({}, "made")
    result = json.loads((here / "run/sft/result.json").read_text())
    assert result["planned"] == {
        **{"megabytes": 3.0, "phase": "backward", "seconds": None},
        "phases": {"forward": 1.0, "backward": 3.0},
    }
    assert "reserved_megabytes" not in result  # there is no card
    assert 32 <= result["peak_megabytes"] < 64 and len(held) == 2**25
    said = capsys.readouterr().out
    assert "planned 3 MB (in backward)" in said and "peak memory" in said


def test_a_finished_stage_writes_the_report_and_notes_the_settings_it_changed(here):
    stage = begin(here, rate=0.2, data=[f"{here}/run/x.jsonl"], steps=3)
    stage.defaults = {"rate": 0.1, "data": [], "steps": 3}
    stage.finish({"examples": 12345}, "made")
    result = json.loads((here / "run/sft/result.json").read_text())
    assert result["changed_settings"] == {"rate": 0.2, "data": ["{run}/x.jsonl"]}
    page = (here / "run/report.html").read_text()
    assert "12345" in page and "{run}/x.jsonl" in page

    (here / "run/report.html").unlink()
    stage.name = "roofline"  # no stage of a run
    stage.finish({}, "made")
    assert not (here / "run/report.html").exists()


def test_a_report_that_fails_does_not_fail_a_stage_that_is_done(here, capsys):
    stage = begin(here)
    (here / "run/report.html").mkdir()
    stage.finish({}, "made")
    assert (here / "run/sft/result.json").is_file()
    assert "sft: no report: IsADirectoryError" in capsys.readouterr().out


def test_a_plan_that_fails_does_not_fail_a_stage_that_is_done(here, capsys):
    stage = begin(here)
    stage.plan = lambda: 1 / 0
    stage.finish({}, "made")
    assert json.loads((here / "run/sft/result.json").read_text())["planned"] is None
    assert "no plan to compare with: ZeroDivisionError" in capsys.readouterr().out


def test_what_has_been_done_is_not_done_again(here):
    begin(here)
    done(here)
    with pytest.raises(Finished):
        begin(here)
    assert (here / "run/sft/metrics.jsonl").is_file()
    (here / "run/sft/result.json").write_text("{half")
    with pytest.raises(Finished):  # another error would leave other ranks waiting
        begin(here)


def test_a_finished_stage_whose_output_is_gone_is_done_again(here, capsys):
    stage = begin(here)
    made = here / "run" / "models" / "sft"
    made.mkdir(parents=True)
    stage.finish({}, "made", outputs=[made])
    assert unchanged(here / "run" / "sft", here / "run")
    with pytest.raises(Finished, match=str(made)):  # where it is
        begin(here)
    made.rmdir()
    assert not unchanged(here / "run" / "sft", here / "run")
    begin(here)
    assert f"done again, because {made} is gone" in capsys.readouterr().out
    assert not (here / "run/sft/result.json").exists()


def test_an_unfinished_stage_goes_on_as_the_same(here):
    first = begin(here)
    kept = checkpoint(here)
    again = begin(here)
    assert kept.is_dir() and again._identity.id == first._identity.id


def test_where_nothing_would_be_lost_it_starts_over_unasked(here):
    first = begin(here)
    (here / "run/sft/metrics.jsonl").write_text("half a step")
    again = begin(here, rate=0.2)
    assert not (here / "run/sft/metrics.jsonl").exists()
    assert again._identity.id != first._identity.id


@pytest.mark.parametrize("finished", [False, True])
def test_another_setting_is_refused_by_name_and_wipes_nothing(here, finished):
    begin(here)
    kept = checkpoint(here)
    if finished:
        done(here)
    with pytest.raises(UserError) as caught:
        begin(here, rate=0.2, clip=1)
    message = str(caught.value)
    assert "rate was 0.1, is 0.2; clip was not a setting, is 1" in message
    assert "--allow_changes rate clip" in message and "--fresh true" in message
    assert kept.is_dir() and (here / "run/sft/result.json").is_file() == finished


def test_another_setting_may_be_allowed_by_name(here):
    first = begin(here)
    kept = checkpoint(here)
    with pytest.raises(UserError, match="clip was not a setting"):
        begin(here, {"allow_changes": ["rate"]}, rate=0.2, clip=1)
    again = begin(here, {"allow_changes": ["rate", "clip"]}, rate=0.2, clip=1)
    assert kept.is_dir() and again._identity.id == first._identity.id
    begin(here, rate=0.2, clip=1)  # from now on these are its settings


def test_an_allowed_change_of_a_finished_stage_goes_on_from_its_end(here):
    begin(here)
    kept = checkpoint(here)
    done(here)
    begin(here, {"allow_changes": ["rate"]}, rate=0.2)
    assert kept.is_dir() and not (here / "run/sft/result.json").exists()


def test_changed_inputs_are_refused_and_may_be_allowed(here):
    begin(here)
    checkpoint(here)
    (here / "data.jsonl").write_text("other rows\n")
    with pytest.raises(UserError, match="the content of .*data.jsonl changed.*_changes inputs"):
        begin(here)
    begin(here, {"allow_changes": ["inputs"]})


def test_a_fresh_start_wipes_the_stage_and_only_it(here):
    begin(here)
    kept = checkpoint(here)
    done(here)
    (here / "run/models").mkdir()
    (here / "run/sft/samples.jsonl").write_text("made for others")
    begin(here, {"fresh": True}, rate=0.2)
    assert not kept.exists() and not (here / "run/sft/result.json").exists()
    assert (here / "run/models").is_dir() and (here / "run/sft/samples.jsonl").is_file()


@pytest.mark.parametrize(
    ("finished", "rate", "rows", "outcome"),
    [
        (True, 0.2, "rows\n", "again"),
        (True, 0.1, "other\n", "again"),
        (False, 0.1, "other\n", "again"),  # an earlier stage made them anew
        (False, 0.2, "rows\n", "refused"),  # days of training are not wiped for an edit
        (False, 0.1, "rows\n", "goes on"),
    ],
)
def test_in_a_pipeline(here, capsys, finished, rate, rows, outcome):
    begin(here)
    kept = checkpoint(here)
    if finished:
        done(here)
    (here / "data.jsonl").write_text(rows)
    if outcome == "refused":
        with pytest.raises(UserError):
            begin(here, {"on_change": "rerun"}, rate=rate)
    else:
        begin(here, {"on_change": "rerun"}, rate=rate)
    assert kept.exists() == (outcome != "again")
    assert ("done again, because" in capsys.readouterr().out) == (outcome == "again")


def test_other_versions_are_told(here, capsys):
    begin(here)
    checkpoint(here)
    file = here / "run/sft/begun.json"
    record = json.loads(file.read_text())
    record["environment"]["torch"] = "0.4"
    file.write_text(json.dumps(record))
    begin(here)
    assert "begun with torch 0.4 (now " in capsys.readouterr().out


def test_two_processes_do_not_work_on_one_stage(here):
    code = f"""
from common.config.arguments import RunArguments
from common.training.stage import Stage
stage = Stage("sft", RunArguments(run={str(here / "run")!r}), {{}}, {{"rate": 0.1}})
stage.begin([{str(here / "data.jsonl")!r}])
print("begun", flush=True)
input()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(UserError, match=rf"another process \({other.pid} on .*\) is at work"):
            begin(here)
    finally:
        other.kill()
        other.wait()
    begin(here)


def test_zero_stays_what_auto_stood_for(here, monkeypatch):
    stage = begin(here)
    assert stage.resolve_zero(ZeroArguments()).zero == "0"  # one rank
    checkpoint(here)
    monkeypatch.setattr("common.training.stage.world_size", lambda: 2)
    assert begin(here).resolve_zero(ZeroArguments()).zero == "0"
    with pytest.raises(UserError, match="are of ZeRO 0 and cannot be read under ZeRO 3"):
        begin(here).resolve_zero(ZeroArguments("3"))


@pytest.mark.parametrize("record", [None, "", "{", "[]", '{"a": 1}'])
@pytest.mark.parametrize("finished", [False, True])
def test_a_stage_that_does_not_say_what_it_was_begun_with_is_not_wiped(here, record, finished):
    begin(here)
    kept = checkpoint(here)
    if finished:
        done(here)
    (here / "run/sft/begun.json").unlink()
    if record is not None:
        (here / "run/sft/begun.json").write_text(record)
    with pytest.raises(UserError, match="begun.json, which says what.*give --fresh true"):
        begin(here)
    assert kept.is_dir() and (here / "run/sft/result.json").is_file() == finished
    begin(here, {"fresh": True})
    assert not kept.exists()


def test_in_a_pipeline_other_words_start_over(here, monkeypatch):
    begin(here)
    checkpoint(here)
    monkeypatch.setenv("RLHF_LAUNCHER", "pipeline.sh CONFIG")
    with pytest.raises(UserError) as caught:
        begin(here, rate=0.2)
    assert "--restart sft" in str(caught.value) and "--fresh true" not in str(caught.value)


def bound(here, run=None, train="a", held_out="b", **settings):
    stage = begin(here, run, **settings)
    stage.bind_examples({"trained on": train, "held out": held_out}, follows=["rate"])
    return read_identity(here / "run/sft").examples


def test_a_run_keeps_to_the_examples_that_it_was_begun_with(here):
    bound(here)
    assert bound(here, train="c") == {"trained on": "c", "held out": "b"}  # nothing would be lost
    kept = checkpoint(here)
    assert bound(here, train="c") == {"trained on": "c", "held out": "b"}
    with pytest.raises(UserError) as caught:
        bound(here, train="c", held_out="c")
    message = str(caught.value)
    assert "which examples are held out changed" in message and "trained on" not in message
    assert "--allow_changes examples" in message and "--fresh true" in message
    assert read_identity(here / "run/sft").examples["held out"] == "b"
    found = bound(here, {"allow_changes": ["examples"]}, train="c", held_out="c")
    assert found == {"trained on": "c", "held out": "c"} and kept.is_dir()
    bound(here, train="c", held_out="c")  # from now on these are its examples


def test_an_allowed_change_of_what_chooses_the_examples_allows_others(here):
    bound(here)
    checkpoint(here)
    with pytest.raises(UserError, match="examples are trained on changed"):
        bound(here, {"allow_changes": ["clip"]}, train="c", clip=1)
    bound(here, {"allow_changes": ["rate"]}, train="c", rate=0.2, clip=1)
    (here / "data.jsonl").write_text("other rows\n")
    bound(here, {"allow_changes": ["inputs"]}, train="d", rate=0.2, clip=1)


def test_a_run_that_did_not_note_its_examples_goes_on_only_where_that_is_allowed(here):
    begin(here)
    checkpoint(here)
    with pytest.raises(UserError, match="held out was not noted yet.*--allow_changes examples"):
        bound(here)
    assert bound(here, {"allow_changes": ["examples"]}) == {"trained on": "a", "held out": "b"}


def test_other_examples_are_begun_with_anew_where_a_stage_may_rerun(here, capsys):
    bound(here)
    kept = checkpoint(here)
    assert bound(here, {"on_change": "rerun"}, train="c")["trained on"] == "c"
    assert not kept.exists() and "examples are trained on changed" in capsys.readouterr().out
