"""What counts as the same stage: settings, contents of inputs, wherever the run lies."""

import os
import subprocess
import sys

import pytest

from common.training.resume.identity import (
    INPUTS,
    Identity,
    content_hashes,
    differences,
    movable,
    read_identity,
    unchanged,
    write_identity,
)
from tests.stages import ROOT


def names(before: Identity, now: Identity) -> list[str]:
    return [str(d) for d in differences(before, now)]


def test_equal_ones_do_not_differ():
    one, two = (Identity({"a": 1, "b": [1, 2]}, {"f": "x"}) for _ in range(2))
    assert names(one, two) == [] and one.id != two.id


def test_each_difference_is_named_with_both_values():
    before = Identity({"rate": 0.1, "gone": 1, "data": ["a"]}, {"a": "x", "b": "y", "c": "z"})
    now = Identity({"rate": 0.2, "data": ["a"], "new": True}, {"a": "x", "b": "Y", "d": "z"})
    assert names(before, now) == [
        "rate was 0.1, is 0.2",
        "gone was 1, is not a setting",
        "new was not a setting, is true",
        "the content of b changed",
        "c is no longer read",
        "d was not read",
    ]
    assert [d.name for d in differences(before, now)][3:] == [INPUTS] * 3


def test_a_setting_that_did_not_exist_stood_at_its_default():
    before, defaults = Identity({"rate": 0.1}, {}), {"rate": 7.0, "clip": 1, "unused": 2}
    assert differences(before, Identity({"rate": 0.1, "clip": 1}, {}), defaults) == []
    found = differences(before, Identity({"rate": 0.1, "clip": 3}, {}), defaults)
    assert [str(d) for d in found] == ["clip was 1, is 3"]


def test_versions_and_machine_are_told_apart_but_do_not_differ():
    assert names(Identity({}, {}, {"torch": "1"}), Identity({}, {}, {"torch": "2"})) == []


def test_a_run_may_be_moved(tmp_path):
    assert movable("runs/a/data/x.jsonl", "runs/a") == "{run}/data/x.jsonl"
    assert movable(["runs/a", {"path": "runs/a/b"}], "runs/a") == ["{run}", {"path": "{run}/b"}]
    # only as a folder, not as part of a name
    assert movable("runs/ab/data", "runs/a") == "runs/ab/data"
    assert movable("my/runs/a/data", "runs/a") == "my/runs/a/data"
    source = '{"path": "runs/a/data/x.jsonl", "columns": "my/runs/a/b"}'  # a mapping, as JSON
    assert movable([source], "runs/a") == [source.replace('"runs/a/data', '"{run}/data')]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "models" / "sft").mkdir(parents=True)
    (folder / "models" / "sft" / "model.safetensors").write_bytes(b"weights")
    (folder / "models" / "sft" / "config.json").write_text("{}")
    (tmp_path / "data.jsonl").write_text("rows\n")
    return folder


def hashes(run):
    paths = [str(run / "models/sft"), str(run.parent / "data.jsonl"), "someone/model"]
    return content_hashes(paths, run)


def test_contents_count_and_nothing_else(run):
    before = hashes(run)
    assert list(before) == ["{run}/models/sft", str(run.parent / "data.jsonl"), "someone/model"]
    assert before["someone/model"] == "hub"
    os.utime(run.parent / "data.jsonl", ns=(1, 1))
    assert hashes(run) == before
    (run / "models/sft/config.json").write_text("{ }")
    changed = hashes(run)
    assert [n for n in before if before[n] != changed[n]] == ["{run}/models/sft"]
    (run / "models/sft/config.json").rename(run / "models/sft/generation_config.json")
    assert hashes(run)["{run}/models/sft"] != changed["{run}/models/sft"]
    before = hashes(run)
    (run / "models/sft/README.md").write_text("settings that changed nothing")
    assert hashes(run) == before


def test_a_file_is_read_again_only_when_it_is_another(run):
    before = hashes(run)
    file = run / "models/sft/model.safetensors"
    status = file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hashes(run) == before  # as long and as old: not looked into
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert hashes(run) != before


def test_a_stage_is_unchanged_until_an_input_is_other(run):
    stage = run / "rlhf"
    assert not unchanged(stage, run)  # it does not say what it was begun with
    write_identity(stage, Identity({"a": 1}, hashes(run), id="x"))
    assert read_identity(stage).id == "x"
    assert unchanged(stage, run)
    command = [sys.executable, "-m", "common.training.resume.identity", str(run), "rlhf"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    (run.parent / "data.jsonl").write_text("other rows\n")
    assert not unchanged(stage, run)
    assert subprocess.run(command, cwd=ROOT).returncode == 1


def test_what_cannot_be_read_is_no_identity(run):
    for text in ("", "{", '{"settings": {}}', "[]", '{"other": 1}'):
        (run / "begun.json").write_text(text)
        assert read_identity(run) is None
