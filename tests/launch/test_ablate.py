"""`launch/ablate.sh` from end to end, on a small pipeline."""

import os
import signal
import subprocess
import time

import pytest
import yaml

from tests.stages import ROOT, config_of, environment, write_data, write_rows

NAMES = ("standard", "mine.half_as_wide")


def prepare(tmp_path):
    write_data(tmp_path)
    sections = config_of(tmp_path)
    del sections["dpo"]
    sections["pairs"] = {"rankings": [str(tmp_path / "rankings.jsonl")]}
    for name in ("sft", "reward", "rlhf"):
        sections[name] |= {"zero": "0", "progress": False}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(sections))
    write_rows(
        tmp_path / "rankings.jsonl",
        [
            {
                "prompt": f"Is the {thing} blue?",
                "responses": [f"The {thing} is blue.", "Yes.", "No, it", "The"],
                "orders": [[1, 0, 2, 3]],
            }
            for thing in ("sky", "sea", "wood", "snow", "coal", "grass")
        ],
    )
    arms = {"as it is": {}, "half as wide": {"rlhf": {"clip_range": 0.1}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"base": "as it is", "arms": arms}))
    return [
        *("bash", "launch/ablate.sh", str(tmp_path / "mine.yaml"), "--seeds", "0", "1"),
        *("--run", str(tmp_path / "runs"), "--config", str(tmp_path / "small.yaml")),
    ]


def start(command):
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(runs):
    return {
        path.relative_to(runs).parts[:3]
        for path in runs.glob("seed*/*/*/result.json")
        if not path.parent.parent.name.startswith(".")
    }


@pytest.mark.slow
def test_a_stopped_ablation_goes_on_and_shares_stages(tmp_path):
    command = [*prepare(tmp_path), "--jobs", "2"]
    runs = tmp_path / "runs"
    process = start(command)
    while not any(stage == "sft" for *_, stage in finished(runs)):
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)  # as a terminal and a batch system do
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 75, output[-3000:]
    assert not (runs / "ablations.md").exists()
    kept = finished(runs)

    process = start(command)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output[-3000:]
    assert kept <= finished(runs)
    for seed in ("seed0", "seed1"):
        for name in NAMES:
            assert (seed, name, "evaluation") in finished(runs)
        assert f"{seed}/mine.half_as_wide: shares sft, sample, pairs, reward with a run" in output
        log = (runs / seed / "mine.half_as_wide.log").read_text()
        assert "reward: finished already, from the same settings and inputs" in log
    page = (runs / "ablations.md").read_text()
    assert "| mine | half as wide, against as it is |" in page
    assert (runs / "mine.png").read_bytes().startswith(b"\x89PNG")
