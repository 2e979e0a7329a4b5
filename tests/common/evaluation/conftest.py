"""A finished run's files, made up; tests remove or bend what they are about."""

import json
import math
import random

import pytest

CRITERIA = (
    "clarity",
    "accuracy",
    "completeness",
    "safety",
    "courtesy",
    "comfortableness",
    "conciseness",
    "context",
)


def response_row(split="seen", index=0, model="sft", decoding="sample", sample=0, **changes):
    """One row of responses.jsonl with all fields; `changes` replaces some."""
    row = {
        "split": split,
        "index": index,
        "model": model,
        "decoding": decoding,
        "sample": sample,
        "prompt": f"Is ad {index} compliant?",
        "response": f"{model} says yes to {index}",
        "ended": True,
        "tokens": 10,
        "criteria": dict.fromkeys(CRITERIA, 1.0),
        "overall": 50.0,
        "reward": 0.0,
    }
    return row | changes


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_result(run, stage, facts):
    (run / stage).mkdir(parents=True, exist_ok=True)
    common = {"seed": 3, "versions": {"torch": "2.13.0", "python": "3.11.7"}}
    (run / stage / "result.json").write_text(json.dumps(facts | common), encoding="utf-8")


def rlhf_metrics(steps=50):
    """Curves with the shapes that PPO curves have."""
    noise = random.Random(0)
    for step in range(steps):
        share = 1 - math.exp(-step / 15)
        times = [noise.gauss(mean, 0.02) for mean in (0.5, 0.4, 1.1)]
        row = {
            "step": step,
            "reward/score": -0.1 + 1.5 * share + noise.gauss(0, 0.05),
            "reward/score_std": 1 - 0.5 * share,
            "reward/total": -0.1 + 1.35 * share,
            "kl/sequence_k1": 2.6 * share,
            "kl/sequence_k3": 2.7 * share,
            "kl/coefficient": 0.05,
            "policy/entropy": 1.2 - 0.6 * share,
            "policy/clip_fraction": 0.08 * (1 - share) + 0.02,
            "policy/approx_kl": 0.01 + noise.gauss(0, 0.001),
            "value/loss": 0.4 * (1 - share) + 0.05,
            "value/explained_variance": None if step == 0 else 0.8 * share,
            "value/clip_fraction": 0.1 * (1 - share),
            "response/length": 19 + 19 * share,
            "response/eos_rate": 0.99,
            "time/generate": times[0],
            "time/score": times[1],
            "time/train": times[2],
            "time/step": sum(times) + 0.05,
        }
        if step % 10 == 0:
            row |= {"eval/score": 1.3 * share, "eval/overall": 76 + 17 * share}
            row |= {"eval/response_length": 19 + 19 * share}
        yield row


@pytest.fixture(name="response_row")
def response_row_fixture():
    return response_row


@pytest.fixture(name="write_lines")
def write_lines_fixture():
    return write_lines


@pytest.fixture(name="write_result")
def write_result_fixture():
    return write_result


@pytest.fixture
def run(tmp_path):
    """A whole run: 24 prompts a split, 4 samples each; RLHF better on average in every split."""
    folder = tmp_path / "quickstart"
    write_result(folder, "sft", {"seconds": 60.0, "eval_perplexity": 1.9, "examples": 6000})
    write_result(folder, "sample", {"seconds": 20.0, "prompts": 1000, "responses": 5000})
    write_result(folder, "rank", {"seconds": 1.0, "labelers": "simulated", "rankings": 3000})
    reward = {"seconds": 40.0, "accuracy": 0.92, "right_minus_wrong": 2.6, "pairs": 4000}
    gaps = {"1-2": {"accuracy": 0.81, "pairs": 700}, "2-3": {"accuracy": 0.97, "pairs": 900}}
    more = {"length_only_accuracy": 0.61, "diagnostics": {"accuracy": {"value": 0.92}}}
    write_result(folder, "reward", reward | {"accuracy_by_gap": gaps} | more)
    (folder / "reward" / "diagnostics.html").write_text("<!doctype html>", encoding="utf-8")
    write_result(folder, "rlhf", {"seconds": 130.5, "kl_per_sequence": 2.5, "eos_rate": 0.99})
    write_result(folder, "evaluation", {"seconds": 30.0})
    write_lines(folder / "rlhf" / "metrics.jsonl", rlhf_metrics())
    write_lines(
        folder / "sft" / "metrics.jsonl",
        [
            {"step": s, "train/loss": 3 * math.exp(-s / 40) + 0.6}
            | ({"eval/perplexity": 8 * math.exp(-s / 40) + 1.9} if s % 25 == 0 else {})
            for s in range(200)
        ],
    )
    write_lines(
        folder / "reward" / "metrics.jsonl",
        [
            {"step": s, "train/loss": 1 - s / 150, "train/accuracy": 0.5 + s / 250}
            | ({"eval/accuracy": 0.5 + s / 260, "eval/loss": 1 - s / 160} if s % 20 == 0 else {})
            for s in range(101)
        ],
    )
    write_lines(folder / "evaluation" / "responses.jsonl", _responses())
    return folder


@pytest.fixture
def four(tmp_path, response_row, write_lines):
    """A run of two prompts with DPO (greedy too) and the best of 3 beside SFT and RLHF."""
    rows = []
    for index in range(2):
        common = {"index": index, "decoding": "sample"}
        rows += [response_row(overall=40.0 + 20 * index, **common)]
        rows += [response_row(model="rlhf", overall=80.0, **common)]
        rows += [response_row(model="dpo", overall=50.0 + 40 * index, **common)]
        rows += [response_row(model="dpo", index=index, decoding="greedy", overall=61.25)]
        best = response_row(model="best_of_3", overall=90.0 - 50 * index, reward=1.5, **common)
        rows += [best | {"chosen": 1, "scores": [0.5, 1.5, -1.0]}]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    return tmp_path


def _responses():
    noise = random.Random(1)
    for split in ("general", "unseen", "seen"):
        for decoding, samples in (("sample", 4), ("greedy", 1)):
            for index in range(24):
                for model in ("sft", "rlhf"):
                    for sample in range(samples):
                        better = 1.0 if model == "rlhf" and split != "general" else 0.0
                        points = {
                            name: float(min(2, noise.choice((0, 1, 2, 2)) + better))
                            for name in CRITERIA
                        }
                        overall = 100 * sum(points.values()) / 16
                        yield response_row(
                            split,
                            index,
                            model,
                            decoding,
                            sample,
                            criteria=points,
                            overall=overall,
                            reward=better + overall / 50 - 1 + noise.gauss(0, 0.2),
                            tokens=noise.randint(10, 40),
                        )
