"""Which weights decay, and learning rates over the steps."""

import math

import pytest
import torch
from torch import nn

from common.config.arguments import OptimizerArguments
from common.errors import UserError
from common.training.engine import (
    lr_schedule,
    parameter_groups,
)


def test_parameter_groups_by_shape_and_by_name():
    model = nn.ModuleDict(
        {
            "layer": nn.Linear(3, 4),
            "norm": nn.LayerNorm(4),
            "embedding": nn.Embedding(5, 3),
            "frozen": nn.Linear(2, 2).requires_grad_(False),
            "score": nn.Linear(4, 1),
            "underscore": nn.Linear(4, 2, bias=False),  # a name that merely contains "score"
        }
    )
    decayed, plain = parameter_groups(model, 0.1, new_modules=("score",))
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0
    names = {p: n for n, p in model.named_parameters()}
    assert [names[p] for p in decayed["params"]] == [
        "layer.weight",
        "embedding.weight",
        "underscore.weight",
    ]
    assert [names[p] for p in plain["params"]] == [
        "layer.bias",
        "norm.weight",
        "norm.bias",
        "score.weight",
        "score.bias",
    ]


def test_a_head_may_have_a_rate_of_its_own():
    model = nn.ModuleDict({"layer": nn.Linear(3, 4, bias=False), "score": nn.Linear(4, 1)})
    decayed, new = parameter_groups(model, 0.1, new_modules=("score",), new_rate=0.25)
    assert decayed["params"] == [model["layer"].weight] and "lr" not in decayed
    assert new["params"] == list(model["score"].parameters())
    assert (new["lr"], new["weight_decay"]) == (0.25, 0.0)


def test_nothing_to_train_is_an_error():
    with pytest.raises(UserError, match="no trainable parameter"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.0)


def rates(schedule, steps=20, **changes):
    """The learning rate of each of `steps` optimizer steps; the peak is 0.5."""
    given = {"learning_rate": 0.5, "lr_schedule": schedule, "warmup_ratio": 0.2, "lr_floor": 0.1}
    adamw = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = lr_schedule(adamw, OptimizerArguments(**{**given, **changes}), steps)
    found = []
    for _ in range(steps):
        found.append(adamw.param_groups[0]["lr"])
        adamw.step()
        scheduler.step()
    return found


def test_learning_rates_by_hand():
    warmup = [0.0, 0.125, 0.25, 0.375]  # a fifth of 20 steps
    left = [i / 16 for i in range(16)]  # how far each step after it is on its way
    expected = {
        "constant": [0.5] * 16,
        "linear": [0.05 + 0.45 * (1 - x) for x in left],
        "cosine": [0.05 + 0.45 * (1 + math.cos(math.pi * x)) / 2 for x in left],
    }
    for schedule, after in expected.items():
        assert rates(schedule) == pytest.approx(warmup + after), schedule


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_of_odd_settings(schedule):
    assert rates(schedule, steps=1, warmup_ratio=1.0) == [0.0]
    assert rates(schedule, warmup_ratio=0.0)[0] == 0.5
    adamw = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.0)
    lr_schedule(adamw, OptimizerArguments(learning_rate=0.0, lr_schedule=schedule), 10)
    assert adamw.param_groups[0]["lr"] == 0.0
    # A floor at the peak is a constant rate.
    assert rates(schedule, warmup_ratio=0.0, lr_floor=1.0) == pytest.approx([0.5] * 20)
