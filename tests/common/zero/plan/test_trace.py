"""What a pass holds, against tensors counted by hand."""

import torch
from torch import nn

from common.zero.plan.trace import ACTIVATIONS, GRADIENTS, LOGITS, Trace, trace

ROWS, WIDTH, FLOAT = 1000, 64, 4


def test_kept_tensors_of_two_layers_counted_by_hand():
    with torch.device("meta"):
        first, second = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        model = nn.Sequential(first, nn.GELU(), second)
        x = torch.zeros(ROWS, WIDTH)
    found = trace(model, lambda: model(x).sum(), logits_width=0, train=True)
    each = ROWS * WIDTH * FLOAT
    # The first layer's result, which GELU needs, GELU's, which the second needs, and the second's,
    # which the sum leaves behind (its size alone is needed), beside the sum itself.
    assert found.forward == {ACTIVATIONS: 3 * each + FLOAT}
    weights = WIDTH * WIDTH * FLOAT
    assert found.late[GRADIENTS] in (weights, 2 * weights)
    assert found.early.get(GRADIENTS, 0) <= weights
    assert sum(found.alone.values()) >= 2 * each


def test_without_gradients_nothing_is_kept():
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(20)))
        x = torch.zeros(ROWS, WIDTH)
    found = trace(model, lambda: model(x).sum(), logits_width=0, train=False)
    # One comes as another goes.
    assert found.forward == {ACTIVATIONS: 2 * ROWS * WIDTH * FLOAT}


def test_logits_are_told_by_their_width():
    with torch.device("meta"):
        model = nn.Linear(WIDTH, 300)
        x = torch.zeros(ROWS, WIDTH)
    found = trace(model, lambda: model(x).sum(), logits_width=300, train=False)
    assert found.forward == {LOGITS: ROWS * 300 * FLOAT, ACTIVATIONS: FLOAT}


def test_flat_and_back():
    one = Trace({ACTIVATIONS: 1, LOGITS: 2, GRADIENTS: 0}, {}, {GRADIENTS: 5}, {})
    again = Trace.of(one.flat())
    assert again.forward == one.forward and again.late[GRADIENTS] == 5
    assert sum(again.early.values()) == 0
