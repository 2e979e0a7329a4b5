"""Tensors that wait in the host's memory."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from common.training.offload import Waiting, weights_of


def held(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def test_what_waits_holds_nothing_and_comes_back_bit_for_bit():
    one, two = torch.randn(3, 4), torch.randn(5).to(torch.bfloat16)
    view = one[1]
    before = [one.clone(), two.clone()]
    waiting = Waiting(lambda: [one, two])
    with waiting.away():
        assert held(one) == held(two) == held(view) == 0
    assert torch.equal(one, before[0]) and torch.equal(two, before[1])
    assert torch.equal(view, before[0][1])  # another view of the same memory stays one
    one += 1
    assert torch.equal(view, before[0][1] + 1)
    with waiting.away():
        pass
    assert torch.equal(one, before[0] + 1)


def test_it_comes_back_whatever_happens():
    one = torch.randn(3)
    before = one.clone()
    with pytest.raises(ValueError, match="inside"), Waiting(lambda: [one]).away():
        raise ValueError("inside")
    assert torch.equal(one, before)


def test_a_constant_is_copied_once():
    model = nn.Linear(3, 2).requires_grad_(False)
    expected = model.weight.clone()
    waiting = Waiting(lambda: weights_of(model), constant=True)
    waiting.send()
    for _ in range(2):
        assert held(model.weight) == held(model.bias) == 0
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
        assert held(model.weight) == 24
    assert held(model.weight) == 24


def test_shared_weights_come_back_shared():
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]).requires_grad_(False)
    model[1].weight = model[0].weight
    before = model[0].weight.clone()
    with Waiting(lambda: weights_of(model, model[0], "not a model")).away():
        assert held(model[1].weight) == 0
    model[0].weight += 1
    assert torch.equal(model[1].weight, before + 1)


def test_weights_that_lie_in_a_file(tmp_path):
    """safetensors maps them into memory; that cannot be given back, so they move out of it."""
    save_file({"weight": torch.ones(2, 3)}, tmp_path / "w.safetensors")
    model = nn.Linear(3, 2, bias=False).requires_grad_(False)
    model.weight.data = load_file(tmp_path / "w.safetensors")["weight"]
    with Waiting(lambda: weights_of(model)).away():
        assert held(model.weight) == 0
    assert model.weight.tolist() == [[1.0] * 3] * 2
