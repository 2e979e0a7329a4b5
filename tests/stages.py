"""A micro data set, its settings, and starting stages on them as the launchers do."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
COLOURS = ["red", "blue", "green", "white", "black", "brown", "pink", "grey"]
THINGS = ["sky", "grass", "snow", "coal", "wood"]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def config_of(data):
    """One file with a section per stage, as `launch/pipeline.sh` takes it."""
    text = {"max_prompt_tokens": 40, "max_response_tokens": 10}
    training = {"batch_size": 8, "micro_batch_size": 2, "eval_batch_size": 4, "evaluations": 2}
    zero = {"zero": "3"}
    return {
        "sft": {
            "model": "tiny",
            "data": [str(data / "sft.jsonl")],
            "eval_fraction": 0.2,
            "tiny_layers": 2,
            "tiny_width": 32,
            "tiny_heads": 2,
            "tiny_vocabulary": 300,
            "learning_rate": 0.02,
            "epochs": 3,
            **text,
            **training,
            **zero,
        },
        "sample": {
            "data": [str(data / "prompts.jsonl")],
            "responses": 4,
            "generation_batch_size": 16,
            **text,
        },
        "pairs": {"rankings": ["{run}/rankings.jsonl"]},
        "reward": {
            "probe": str(data / "probe.jsonl"),
            "eval_fraction": 0.3,
            "learning_rate": 0.01,
            "epochs": 2,
            "patience": 1,
            **text,
            **training,
            **zero,
        },
        "rlhf": {
            "data": [str(data / "prompts.jsonl")],
            "eval_data": [str(data / "held_out.jsonl")],
            "steps": 3,
            "rollout_batch_size": 8,
            "mini_batch_size": 4,
            "micro_batch_size": 2,
            "score_batch_size": 3,
            "ppo_epochs": 2,
            "critic_warmup_steps": 1,
            "evaluate_every": 2,
            "actor_learning_rate": 0.003,
            "critic_learning_rate": 0.003,
            "generation_batch_size": 2,
            "kl_target": 0.5,
            "kl_horizon": 100,
            **text,
            **zero,
        },
        "dpo": {
            "eval_fraction": 0.3,
            "learning_rate": 0.003,
            "epochs": 2,
            **text,
            **training,
            **zero,
        },
        "evaluation": {
            "data": [{"name": "held_out", "path": str(data / "held_out.jsonl")}],
            "samples": 2,
            "best_of": 2,
            "generation_batch_size": 3,
            **text,
        },
    }


def write_data(folder):
    questions = [(thing, colour) for thing in THINGS for colour in COLOURS]
    ask = "Is the {} {}?".format
    write_rows(
        folder / "sft.jsonl",
        [{"prompt": ask(t, c), "completion": f"The {t} is {c}."} for t, c in questions],
    )
    write_rows(folder / "prompts.jsonl", [{"prompt": ask(t, c)} for t, c in questions[:12]])
    # An odd number: the ranks get different shares.
    write_rows(folder / "held_out.jsonl", [{"prompt": ask("sea", c)} for c in COLOURS[:5]])
    write_rows(
        folder / "probe.jsonl",
        [{"prompt": ask(t, c), "right": "Yes.", "wrong": f"The {t}"} for t, c in questions[:3]],
    )
    (folder / "all.yaml").write_text(yaml.safe_dump(config_of(folder)))


def rank_samples(run):
    """Two labelers who like short responses."""
    rows = [json.loads(line) for line in (run / "sample/samples.jsonl").read_text().splitlines()]
    for row in rows:
        order = sorted(range(len(row["responses"])), key=lambda i: len(row["responses"][i]))
        row["orders"] = [order, order]
    write_rows(run / "rankings.jsonl", rows)


def environment(**more):
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_NUM_THREADS_OVERRIDE": "1",
        **quiet,
        **more,
    }


def launch(ranks, script, *arguments):
    """One stage as the launchers start it: through the `deepspeed` command."""
    tools = Path(sys.executable).parent
    lines = f"""
        source launch/env.sh
        PYTHON="{sys.executable}" PATH="{tools}:$PATH"
        launch_stage {ranks} {script} "$@"
    """
    return subprocess.Popen(
        ["bash", "-c", lines, "launch", *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start(script, *arguments):
    """One stage as a plain process: one rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=ROOT,
        env=environment(MASTER_PORT=str(port), PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, seconds=150):
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output[-6000:]
    return output


def kill_after(process, run, stage, steps):
    """Kills a stage as soon as its metrics have so many steps."""
    done = run / stage / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while not (done.is_file() and done.read_text().count("\n") >= steps):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def read(run, stage):
    result = json.loads((run / stage / "result.json").read_text())
    file = run / stage / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return result, [json.loads(line) for line in lines]
