"""The moving average of weights against a loop from its definition; engines in test_iteration."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common.training.average import WeightAverage, share_of
from common.training.resume.states import read_state, write_state


def model_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    return model


def moved(model: nn.Module, step: int) -> list[torch.Tensor]:
    """Sets weights as an optimizer would; returns them in float64."""
    draw = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw))
    return [p.detach().double().clone() for p in model.parameters() if p.requires_grad]


def test_it_is_its_definition():
    model = model_of(0)
    expected = [p.detach().double().clone() for p in model.parameters() if p.requires_grad]
    average = WeightAverage(SimpleNamespace(module=model), decay=0.9)
    for step in range(5):
        current = moved(model, step)
        average.update()
        expected = [0.9 * e + 0.1 * w for e, w in zip(expected, current, strict=True)]
    found = average.state_dict()["weights"]
    assert len(found) == 3 and all(x.dtype == torch.float32 for x in found)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-6)


def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    results = []
    for stops in (False, True):
        model = model_of(0)
        average = WeightAverage(SimpleNamespace(module=model), decay=0.7)
        for step in range(4):
            moved(model, step)
            average.update()
            if stops and step == 1:
                write_state(tmp_path / "shared", {"average": average.state_dict()})
                average = WeightAverage(SimpleNamespace(module=model_of(9)), decay=0.7)
                average.load_state_dict(read_state(tmp_path / "shared")["average"])
                other = average.engine.module
                other.load_state_dict(model.state_dict())
                model = other
        results.append(average.state_dict()["weights"])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_model_has_the_averages_only_while_they_are_saved():
    model = model_of(0)
    average = WeightAverage(SimpleNamespace(module=model), decay=0.5)
    moved(model, 1)
    average.update()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(OSError), average.in_place():
        inside = [p.clone() for p in model.parameters() if p.requires_grad]
        assert all(
            torch.equal(a, b) for a, b in zip(inside, average.state_dict()["weights"], strict=True)
        )
        assert not torch.equal(inside[0], before["0.weight"])
        assert torch.equal(model[0].bias, before["0.bias"])  # is not trained
        raise OSError("the disk is full")
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_a_share_of_a_whole_weight_is_filled_up(monkeypatch):
    whole = torch.arange(10.0).view(2, 5)
    spread = SimpleNamespace(ds_id=1, ds_tensor=torch.zeros(4))
    monkeypatch.setattr("common.training.average.world_size", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr("common.training.average.rank", lambda number=number: number)
        shares.append(share_of(whole, spread).tolist())
    assert shares == [[0.0, 1, 2, 3], [4.0, 5, 6, 7], [8.0, 9, 0, 0]]
    assert share_of(whole, SimpleNamespace()) is whole
