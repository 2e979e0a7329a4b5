"""When a training ends before its time, with which weights, and what a resumed one does."""

from types import SimpleNamespace

import pytest
import torch

from common.config.arguments import OptimizerArguments
from common.training.early_stop import EarlyStop
from common.training.engine import build_engine, gathered_parameters, optimizer_step, process_group
from common.training.guard import Guard, GuardArguments
from common.training.loop import Loop
from common.training.resume.arguments import CheckpointArguments
from common.training.resume.checkpoints import Checkpoints
from tests.ranks import run_ranks, shard_everything, zero_of

# Accuracy and loss after each step; the third is the best, by its loss.
COURSE = [(0.5, 0.7), (0.6, 0.6), (0.6, 0.5), (0.6, 0.5), (0.4, 0.1), (0.6, 0.6), (0.9, 0.1)]


class Killed(Exception):
    pass


def train(root, patience, killed_after=None):
    """Steps that add 1 to a weight; returns it, the steps taken, and what was said."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    stop = EarlyStop(SimpleNamespace(module=model), patience)
    checkpoints = Checkpoints(
        root,
        CheckpointArguments(checkpoint_minutes=0, checkpoint_epochs=False, checkpoint_steps=1),
        engines={},
        shared={"early_stop": stop},
    )
    files = SimpleNamespace(write=lambda step, values: None)
    taken, said = [], []

    def step(number):
        if number == killed_after:
            checkpoints.wait()
            raise Killed
        torch.nn.init.constant_(model.weight, float(number))
        taken.append(number)
        accuracy, loss = COURSE[number - 1]
        values = {"eval/accuracy": accuracy, "eval/loss": loss, "train/loss": 1.0}
        stop.see(values, number)
        return values

    Loop(checkpoints, files, Guard(GuardArguments())).run(
        len(COURSE),
        step,
        title="",
        caption=lambda values: "",
        ends_epoch=lambda number: False,
        ended=lambda: stop.ended,
        shown=False,
    )
    checkpoints.wait()
    stop.go_back(said.append)
    return float(model.weight), taken, said


@pytest.mark.parametrize(
    ("patience", "steps", "best"), [(1, 4, 3), (2, 5, 3), (3, 6, 3), (4, 7, 7), (9, 7, 7)]
)
def test_it_ends_when_patience_does_with_the_best_weights(tmp_path, patience, steps, best):
    weight, taken, said = train(tmp_path, patience)
    assert taken == list(range(1, steps + 1)) and weight == best
    assert len(said) == (best < steps)
    assert all(f"0.600 after step 3; {patience} evaluations" in line for line in said)


@pytest.mark.parametrize("killed_after", [2, 4, 5])
def test_a_killed_training_ends_as_one_left_alone(tmp_path, killed_after):
    alone = train(tmp_path / "alone", patience=3)
    with pytest.raises(Killed):
        train(tmp_path / "killed", patience=3, killed_after=killed_after)
    weight, taken, said = train(tmp_path / "killed", patience=3)
    assert (weight, said) == (alone[0], alone[2])
    assert taken == list(range(killed_after, 7))


def test_one_that_ended_takes_no_further_step(tmp_path):
    first = train(tmp_path, patience=2)
    weight, taken, _ = train(tmp_path, patience=2)
    assert taken == [] and weight == first[0]


def go_on_and_back(zero):
    """A model's weights after the best step, and what comes back after two more; on one rank."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    settings = OptimizerArguments(
        learning_rate=0.5, warmup_ratio=0.0, batch_size=2, micro_batch_size=1
    )
    engine = build_engine(
        model, zero=zero_of(zero), dtype=torch.float32, optimizer=settings, total_steps=4
    )
    stop = EarlyStop(engine, patience=2)
    found = []
    for number, accuracy in enumerate((0.5, 0.9, 0.8, 0.7), start=1):
        count = engine.gradient_accumulation_steps()
        optimizer_step(engine, [lambda: engine(torch.ones(1, 4)).sum()] * count, 2.0, "here")
        stop.see({"eval/accuracy": accuracy, "eval/loss": 1.0}, number)
        found.append(weights_of(engine))
    stop.go_back(lambda text: None)
    with torch.no_grad():
        output = float(engine(torch.ones(1, 4)))
    return found, weights_of(engine), output


def weights_of(engine):
    with gathered_parameters(engine.module):
        return torch.cat([p.detach().flatten().clone() for p in engine.module.parameters()])


def on_all(zeros):
    shard_everything()
    with process_group():
        return {zero: go_on_and_back(zero) for zero in zeros}


@pytest.mark.slow
def test_both_ranks_go_back_under_every_kind_of_zero():
    for per_rank in run_ranks(on_all, 2, ["0", "2", "3"], start_group=False, timeout=240):
        for zero, (found, after, output) in per_rank.items():
            assert torch.equal(after, found[1]) and not torch.equal(after, found[3]), zero
            weight, bias = after[:12].view(3, 4), after[12:15]
            hidden = weight @ torch.ones(4) + bias
            assert output == pytest.approx(float(after[15:18] @ hidden + after[18]), abs=1e-5)
