"""Tensors that wait in the host's memory."""

import pytest
import torch
from torch import nn

from common.training.offload import Waiting, weights_of


def test_what_waits_is_empty_and_comes_back_bit_for_bit():
    one, two = torch.randn(3, 4), torch.randn(5).to(torch.bfloat16)
    before = [one.clone(), two.clone()]
    waiting = Waiting(lambda: [one, two])
    with waiting.away():
        assert one.numel() == two.numel() == 0
    assert torch.equal(one, before[0]) and torch.equal(two, before[1])
    one += 1
    with waiting.away():
        pass
    assert torch.equal(one, before[0] + 1)


def test_it_comes_back_whatever_happens():
    one = torch.randn(3)
    with pytest.raises(ValueError, match="inside"), Waiting(lambda: [one]).away():
        raise ValueError("inside")
    assert one.shape == (3,)


def test_a_constant_is_copied_once():
    model = nn.Linear(3, 2).requires_grad_(False)
    expected = model.weight.clone()
    waiting = Waiting(lambda: weights_of(model), constant=True)
    waiting.send()
    for _ in range(2):
        assert model.weight.numel() == model.bias.numel() == 0
        with waiting.here():
            assert torch.equal(model.weight, expected)
            with waiting.here():
                pass
            assert torch.equal(model.weight, expected)  # still needed outside
            model.weight += 100.0  # nobody should, and it is gone afterwards
    waiting.fetch()
    assert torch.equal(model.weight, expected)


def test_here_is_nothing_where_nothing_was_sent():
    model = nn.Linear(3, 2)
    with Waiting(lambda: weights_of(model)).here():
        assert model.weight.numel() == 6
    assert model.weight.numel() == 6


def test_shared_weights_are_sent_once():
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    model[1].weight = model[0].weight
    assert len(weights_of(model, model[0], "not a model")) == 3
