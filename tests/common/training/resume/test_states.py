"""States in and out of files, and the random generators that they bring back."""

import json
import random

import numpy as np
import pytest
import torch

from common.training.resume.states import RandomStates, read_state, write_state


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {
        "number": 3,
        "share": 0.1,
        "nothing": None,
        "yes": True,
        "infinite": float("inf"),
        "text": "ä\n\u2028",
        "list": [1, [2.5, {"deep": torch.arange(3)}]],
        "weights": {"a.b": torch.randn(2, 3), "c": torch.tensor(2**60)},
        "empty": {},
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    write_state(tmp_path / "rank_00000", state)
    found = read_state(tmp_path / "rank_00000")
    assert found.keys() == state.keys()
    for name in ("number", "share", "nothing", "yes", "infinite", "text", "empty"):
        assert found[name] == state[name] and type(found[name]) is type(state[name])
    assert found["list"][1][1]["deep"].equal(torch.arange(3))
    assert found["weights"]["a.b"].equal(state["weights"]["a.b"])
    assert found["weights"]["c"].item() == 2**60
    assert found["half"].dtype == torch.bfloat16 and found["half"].equal(state["half"])


def test_without_tensors_there_is_only_json(tmp_path):
    write_state(tmp_path / "shared", {"step": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["shared.json"]
    assert json.loads((tmp_path / "shared.json").read_text()) == {"step": 1}


def test_views_of_one_tensor_are_written_apart(tmp_path):
    base = torch.arange(6.0)
    write_state(tmp_path / "s", {"a": base[:3], "b": base[2:], "c": base.view(2, 3).T})
    found = read_state(tmp_path / "s")
    assert found["b"].tolist() == [2, 3, 4, 5] and found["c"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("bad", [{"a": {1: 2}}, {"a": object()}, {"a": [b"bytes"]}, {"a": {1, 2}}])
def test_what_would_have_to_be_pickled_is_refused_by_its_place(tmp_path, bad):
    with pytest.raises(TypeError, match=r"state a"):
        write_state(tmp_path / "s", bad)


def draws():
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(2).tolist(),
        torch.randn(3).tolist(),
    ]


def test_the_very_draws_go_on(tmp_path):
    draws()  # leaves half a pair in both Gaussian generators
    random.gauss(0, 1)
    write_state(tmp_path / "random", RandomStates().state_dict())
    expected = [draws() for _ in range(3)]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert draws() != expected[0]
    RandomStates().load_state_dict(read_state(tmp_path / "random"))
    assert [draws() for _ in range(3)] == expected
