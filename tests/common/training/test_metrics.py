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


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_file_has_no_step_twice_and_no_gap(tmp_path):
    settings = RunArguments(run=str(tmp_path))
    with MetricsWriter(tmp_path, settings, "sft", {}) as writer:
        for step in (1, 2):
            writer.write(step, {"a": step})
        writer.event(2, fault="kl")
        state = writer.state_dict()
        writer.write(3, {"a": 3})
        writer.event(3, fault="entropy")
    (tmp_path / "metrics.jsonl").open("a").write('{"step": 4, "a"')  # killed while writing
    with MetricsWriter(tmp_path, settings, "sft", {}) as writer:
        writer.load_state_dict(state)
        assert [row["step"] for row in lines_of(tmp_path / "metrics.jsonl")] == [1, 2]
        writer.write(3, {"a": 30})
    assert [row["a"] for row in lines_of(tmp_path / "metrics.jsonl")] == [1, 2, 30]
    assert [row["fault"] for row in lines_of(tmp_path / "events.jsonl")] == ["kl"]


def test_without_a_checkpoint_the_file_is_begun_anew(tmp_path):
    settings = RunArguments(run=str(tmp_path))
    for value in (1, 2):
        with MetricsWriter(tmp_path, settings, "sft", {}) as writer:
            writer.write(1, {"a": value})
    assert lines_of(tmp_path / "metrics.jsonl") == [{"step": 1, "a": 2}]


class Wandb:
    """Stands for a wandb run."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, values, step) -> None:
        self.steps.append(step)

    def finish(self, exit_code) -> None:
        pass


def test_wandb_gets_no_step_twice(tmp_path, monkeypatch):
    import wandb

    given, service = [], Wandb()
    monkeypatch.setattr(wandb, "init", lambda **facts: given.append(facts) or service)
    settings = RunArguments(run=str(tmp_path), wandb=True)
    with MetricsWriter(tmp_path, settings, "sft", {}, "abc") as writer:
        writer.write(1, {"a": 1})
        state = writer.state_dict()
        for step in (2, 3):
            writer.write(step, {"a": step})
    with MetricsWriter(tmp_path, settings, "sft", {}, "abc") as writer:
        writer.load_state_dict(state)
        for step in (2, 3, 4):
            writer.write(step, {"a": step})
    assert service.steps == [1, 2, 3, 4]
    assert [(facts["id"], facts["resume"]) for facts in given] == [("abc", "allow")] * 2
