"""What a checkpoint holds besides DeepSpeed's engines: anything with `state_dict`, random states.

Tensors go into safetensors, all else into JSON; nothing is pickled.
"""

import json
import random
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from common.files import write_text

_TENSOR = "__tensor__"


class Stateful(Protocol):
    """Something whose state a checkpoint must hold.

    A state is made of dicts with string keys, lists, numbers, strings, None, and tensors.
    """

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on from here."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""


class RandomStates:
    """Every random generator that this process draws from without a seed of its own."""

    def state_dict(self) -> dict[str, Any]:
        """Python's, NumPy's, torch's, and the card's."""
        version, internal, gauss = random.getstate()
        kind, keys, position, has_gauss, cached = np.random.get_state()
        state: dict[str, Any] = {
            "python": [version, list(internal), gauss],
            "numpy": [kind, keys.tolist(), position, has_gauss, cached],
            "torch": torch.get_rng_state(),
        }
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave; a card's state only where there is one."""
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(state["torch"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes `path`.json, and `path`.safetensors where the state has tensors.

    Raises:
        TypeError: the state holds something that is neither a tensor nor JSON.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}

    def plain(value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            tensors[place] = value.detach().to("cpu", copy=True).contiguous()
            return {_TENSOR: place}
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise TypeError(f"state {place or 'itself'}: keys of a state must be strings")
            return {key: plain(v, f"{place}.{key}" if place else key) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v, f"{place}.{i}") for i, v in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"state {place}: a {type(value).__name__} is neither a tensor nor JSON")

    content = plain(state, "")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not strict: a metric may be NaN.
    write_text(path.with_suffix(".json"), json.dumps(content))
    if tensors:
        save_file(tensors, path.with_suffix(".safetensors"))


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote."""
    from safetensors.torch import load_file

    file = path.with_suffix(".safetensors")
    tensors = load_file(file) if file.is_file() else {}

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {_TENSOR}:
                return tensors[value[_TENSOR]]
            return {key: whole(v) for key, v in value.items()}
        return [whole(v) for v in value] if isinstance(value, list) else value

    return whole(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
