"""A run's answers, made up: three models on two splits."""

import json

import pytest

MODELS = ("sft", "rlhf", "best_of_4")


def row(split, index, model, response, decoding="sample", sample=0, **more):
    return {
        **{"split": split, "index": index, "model": model, "decoding": decoding, "sample": sample},
        **{"prompt": f"{split} {index}?", "response": response, "ended": True, "tokens": 3},
        **more,
    }


def write_responses(run, rows):
    path = run / "evaluation" / "responses.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return run


@pytest.fixture
def answered(tmp_path):
    """Lengths of answers: SFT 6, RLHF 9, best-of-4 12, and 6 like SFT on prompts 0."""
    rows = []
    for split in ("seen", "general"):
        for index in range(4):
            name = f"{split[0]}{index}"
            rows.append(row(split, index, "sft", f"sft {name}"))
            rows.append(row(split, index, "sft", "another", sample=1))
            rows.append(row(split, index, "sft", f"greedy sft {name}", "greedy"))
            rows.append(row(split, index, "rlhf", f"rlhf   {name}"))
            rows.append(row(split, index, "rlhf", f"greedy rlhf {name}", "greedy"))
            best = f"best of   {name}" if index else f"sft {name}"
            rows.append(row(split, index, "best_of_4", best, scores=[1.0, 2.0, 0.5, 0.0]))
    return write_responses(tmp_path / "run", rows)


@pytest.fixture(name="row")
def row_fixture():
    return row


@pytest.fixture(name="write_responses")
def write_responses_fixture():
    return write_responses
