"""metrics.jsonl, and Weights & Biases where it is asked for."""

import json
import sys

import pytest

from common.config.arguments import RunArguments
from common.errors import UserError
from common.training.metrics import MetricsWriter


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_a_step_and_plain_json_whatever_the_numbers(tmp_path):
    with MetricsWriter(tmp_path, RunArguments(), "sft", {}) as metrics:
        metrics.write(1, {"train/loss": 0.5, "eval/perplexity": float("inf")})
        assert rows_of(tmp_path)  # on disk at once, for who watches
        metrics.write(2, {"train/loss": float("nan")})
    assert rows_of(tmp_path) == [
        {"step": 1, "train/loss": 0.5, "eval/perplexity": None},
        {"step": 2, "train/loss": None},
    ]


def test_without_wandb_everything_works_but_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with MetricsWriter(tmp_path, RunArguments(), "sft", {}) as metrics:
        metrics.write(1, {"train/loss": 0.5})
    assert len(rows_of(tmp_path)) == 1
    with pytest.raises(UserError, match="--wandb needs the package wandb: pip install wandb"):
        MetricsWriter(tmp_path, RunArguments(wandb=True), "sft", {})


def test_wandb_without_a_login_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    import wandb

    def init(**settings):
        raise wandb.errors.UsageError("api_key not configured")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(UserError, match="api_key not configured; log in with `wandb login`, or"):
        MetricsWriter(tmp_path, RunArguments(wandb=True), "sft", {})
