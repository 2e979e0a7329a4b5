"""`launch/pipeline.sh` again: what is done stays done, what changed is done again, no more."""

import json
import signal
import subprocess
import time

import pytest
import torch
import yaml

from tests.servers import Server
from tests.stages import ROOT, config_of, environment, write_data
from tests.step2_reward.ai_feedback.judges import order_by


@pytest.fixture
def run(tmp_path):
    """A run with samples, for the two stages that need no model."""
    folder = tmp_path / "run"
    (folder / "sample").mkdir(parents=True)
    write_samples(folder)
    return folder


def write_samples(run, **dump):
    from common.data.ad_moderation.prepare import write_splits
    from common.data.ad_moderation.splits import Sizes

    data = run.parent / "data"
    if not data.is_dir():
        write_splits(data, seed=0, sizes=Sizes().scaled(0.02))
    lines = (data / "reward_prompts.jsonl").read_text().splitlines()[:6]
    answers = ["Yes.", "No.", "It may not run."]
    rows = [
        {"prompt": p["prompt"], "responses": answers, "facts": p["facts"]}
        for p in map(json.loads, lines)
    ]
    text = "".join(json.dumps(row, **dump) + "\n" for row in rows)
    (run / "sample" / "samples.jsonl").write_text(text)


def pipeline(run, sections, *options):
    file = run.parent / "config.yaml"
    file.write_text(yaml.safe_dump(sections))
    command = ["bash", "launch/pipeline.sh", str(file), "--run", str(run), *options]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outcome(run, labelers=3, **pairs):
    """What each stage says it did."""
    process = pipeline(run, {"rank": {"labelers": labelers}, "pairs": pairs})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output[-3000:]
    found = {}
    for line in output.splitlines():
        stage, _, text = line.partition(": ")
        if stage in ("rank", "pairs"):
            found.setdefault(stage, []).append(text)
    return found


def test_only_what_changed_is_done_again(run):
    first = outcome(run)
    assert "simulated labelers ranked" in first["rank"][0] and " pairs" in first["pairs"][0]
    done = ["finished already, from the same settings and inputs"]
    assert outcome(run) == {"rank": done, "pairs": done}

    # The last stage's setting: the one before it stays done.
    found = outcome(run, top=1)
    assert found["rank"] == done
    assert found["pairs"][0] == "done again, because top was 2, is 1"

    # Another content of the same rankings: the ranking is done again and gives what it gave.
    write_samples(run, indent=None, separators=(",", ":"))
    found = outcome(run, top=1)
    assert "samples.jsonl changed" in found["rank"][0]
    assert found["pairs"] == done

    # Fewer labelers: other rankings, and so other pairs.
    found = outcome(run, labelers=1, top=1)
    assert found["rank"][0] == "done again, because labelers was 3, is 1"
    assert "rankings.jsonl changed" in found["pairs"][0]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two ranks in fp32 on the CPU")
def test_a_signal_stops_the_pipeline_with_the_code_that_asks_for_the_same_command(tmp_path):
    write_data(tmp_path)
    run = tmp_path / "run"
    sections = {"sft": config_of(tmp_path)["sft"] | {"epochs": 4000, "progress": False}}
    process = pipeline(run, sections, "--processes", "2")
    metrics = run / "sft" / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output[-3000:]
    assert "sft: stopped; the same command goes on" in output
    steps = metrics.read_text().count("\n")
    # Epochs may have ended before the signal came, and then there are their checkpoints too.
    saved = max((run / "sft" / "checkpoints").glob("step_*"))
    assert saved.name == f"step_{steps:08d}"

    # The same command with another setting is refused; nothing is wiped unasked.
    sections["sft"]["learning_rate"] = 0.5
    process = pipeline(run, sections, "--processes", "2")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "learning_rate was 0.02, is 0.5" in output and "--allow_changes" in output
    assert saved.is_dir()


@pytest.mark.slow
def test_ai_feedback_joins_other_rankings_in_a_pipeline(run, monkeypatch):
    """And nothing is asked twice when the pipeline is given again."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server([order_by(len)], "/v1/chat/completions") as server:
        judge = {"endpoint": server.url.removesuffix("/chat/completions"), "judge_model": "judge"}
        sections = {
            "rank": {"labelers": 2},
            "ai_rank": judge,
            "import": {
                "files": ["{run}/rank/rankings.jsonl", "{run}/ai_rank/rankings.jsonl"],
                "rankings": "{run}/all.jsonl",
            },
            "pairs": {"rankings": ["{run}/all.jsonl"]},
        }
        for time_given in (1, 2):
            process = pipeline(run, sections)
            output, _ = process.communicate(timeout=400)
            assert process.returncode == 0, output[-3000:]
            assert len(server.bodies) == 12
            assert ("ai_rank: finished already" in output) == (time_given == 2)
    rows = [json.loads(line) for line in (run / "all.jsonl").read_text().splitlines()]
    names = ["simulated:1", "simulated:2", "ai:judge"]
    assert len(rows) == 6 and all(row["labelers"] == names for row in rows)
    assert "AI feedback" in (run / "report.html").read_text()
