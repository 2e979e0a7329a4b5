"""What is broken on purpose: that and nothing else, in a copy."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import common.evaluation.broken as broken
from common.config.parsing import read_yaml
from common.errors import UserError
from common.evaluation.broken import CULPRITS, QUICKSTART, SHUFFLED, break_run, shuffled
from common.evaluation.diagnosis import diagnose
from common.evaluation.run_files import METRIC_STAGES, read_metrics
from common.evaluation.summary import build_summary

ROOT = Path(__file__).parents[3]
PAIRS = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(400)]


@pytest.fixture
def finished(run, write_lines):
    write_lines(run / "pairs" / "pairs.jsonl", PAIRS)
    return run


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("labels", {("reward", "data"), ("reward", "epochs")}),
        (
            "sft",
            {("sft", "epochs"), ("sample", "data"), ("reward", "epochs")},
        ),
        (
            "ppo",
            {("rlhf", n) for n in ("actor_learning_rate", "critic_learning_rate")},
        ),
    ],
)
def test_only_what_is_named_is_changed(finished, tmp_path, kind, changed):
    out = tmp_path / "out"
    config = break_run(kind, finished, out)
    before, after = read_yaml(QUICKSTART)[0], read_yaml(config)[0]
    assert after["run"] == str(out)
    assert list(after) == list(before)  # the stages, in their order
    found = {
        (stage, name)
        for stage, section in after.items()
        if isinstance(section, dict)
        for name in section.keys() | before[stage].keys()
        if section.get(name) != before[stage].get(name)
    }
    assert found == changed | {("rlhf", "steps"), ("evaluation", "limit")}
    if kind == "ppo":
        for name in ("actor_learning_rate", "critic_learning_rate"):
            assert after["rlhf"][name] == pytest.approx(100 * before["rlhf"][name])
    if kind == "sft":
        assert round(31_725 / after["sft"]["batch_size"] * after["sft"]["epochs"]) == 10


def test_a_coin_chooses_the_better_response_and_the_run_is_not_touched(finished, tmp_path):
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    out = tmp_path / "out"
    break_run("labels", finished, out)
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before
    rows = [json.loads(line) for line in (out / SHUFFLED).read_text().splitlines()]
    assert (out / "pairs" / "pairs.jsonl").read_text() == before[
        finished / "pairs" / "pairs.jsonl"
    ].decode()
    swapped = 0
    for row, pair in zip(rows, PAIRS, strict=True):
        assert {row["chosen"], row["rejected"]} == {pair["chosen"], pair["rejected"]}
        assert row["prompt"] == pair["prompt"]
        swapped += row["chosen"] != pair["chosen"]
    assert abs(swapped - 200) < 4 * 10  # four deviations of 400 coins
    assert list(shuffled(PAIRS, seed=1)) != rows


def test_the_same_command_goes_on(finished, tmp_path):
    out = tmp_path / "out"
    break_run("ppo", finished, out)
    (out / "rlhf" / "metrics.jsonl").write_text("begun")
    break_run("ppo", finished, out)
    assert (out / "rlhf" / "metrics.jsonl").read_text() == "begun"


def test_a_copy_that_was_cut_short_is_made_anew(finished, tmp_path, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(broken, "write_json_lines", cut)
        break_run("labels", finished, out)
    assert not out.exists()
    break_run("labels", finished, out)
    assert (out / SHUFFLED).is_file() and not list(tmp_path.glob("*.part"))


def test_an_unfinished_run_and_a_copy_inside_of_the_run_are_refused(finished, tmp_path):
    with pytest.raises(UserError, match="quickstart.sh"):
        break_run("ppo", tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UserError, match="beside it"):
        break_run("ppo", finished, finished / "broken")
    assert not (finished / "broken").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", CULPRITS)
def test_the_diagnosis_names_what_was_broken(kind, tmp_path, whole_run):
    """Some ten minutes each, and the quickstart's twenty before the first one."""
    out = tmp_path / kind
    subprocess.run(["bash", ROOT / "launch" / "broken.sh", kind, whole_run, out], check=True)
    metrics = {stage: read_metrics(out / stage / "metrics.jsonl") for stage in METRIC_STAGES}
    assert diagnose(build_summary(out), metrics).culprit == CULPRITS[kind]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A finished quickstart: the one that QUICKSTART_RUN names, else made here."""
    if named := os.environ.get("QUICKSTART_RUN"):
        return Path(named)
    run = tmp_path_factory.mktemp("whole") / "quickstart"
    subprocess.run(["bash", ROOT / "launch" / "quickstart.sh", "--run", run], check=True)
    return run


def test_asking_for_help_starts_nothing():
    done = subprocess.run(
        ["bash", ROOT / "launch" / "broken.sh", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "hundredfold" in done.stdout
    assert "setup" not in done.stdout + done.stderr and "pipeline" not in done.stderr
