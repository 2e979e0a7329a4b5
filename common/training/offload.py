"""What is not at work waits in the host's memory: optimizer states, models that only score.

DeepSpeed's own `offload_states` does this for ZeRO-3 with one optimizer of its own; this does it
under any stage.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Waiting:
    """Tensors that can be sent to the host's memory, which frees their own, and fetched back."""

    def __init__(self, tensors: Callable[[], Sequence[Tensor]], *, constant: bool = False) -> None:
        """Args:
        tensors: which ones, asked anew at each sending; none shares its memory with another.
        constant: their values never change, so that one copy is enough.
        """
        self.tensors = tensors
        self.constant = constant
        self._copies: dict[int, Tensor] = {}
        self._away: list[tuple[Tensor, torch.device]] = []

    def send(self) -> None:
        """To the host's memory; the tensors are empty until they are fetched."""
        for tensor in self.tensors():
            copy = self._copies.get(id(tensor))
            if copy is None or copy.shape != tensor.shape:
                pinned = tensor.is_cuda
                copy = torch.empty_like(
                    tensor, device="cpu", pin_memory=pinned, requires_grad=False
                )
                copy.copy_(tensor.detach())
            elif not self.constant:
                copy.copy_(tensor.detach())
            self._copies[id(tensor)] = copy
            self._away.append((tensor, tensor.device))
            tensor.data = tensor.data.new_empty(0)

    def fetch(self) -> None:
        """Back to where they were, bit for bit."""
        for tensor, place in self._away:
            tensor.data = self._copies[id(tensor)].to(place, copy=True)
        self._away.clear()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Sent inside, fetched afterwards whatever happens."""
        self.send()
        try:
            yield
        finally:
            self.fetch()

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Fetched inside, sent away again afterwards; nested uses are one."""
        if not self._away:
            yield
            return
        self.fetch()
        try:
            yield
        finally:
            self.send()


def weights_of(*models: Any) -> list[Tensor]:  # noqa: ANN401
    """What this rank holds of the models' weights: whole ones, or ZeRO-3's shards."""
    found = [p for m in models if isinstance(m, nn.Module) for p in m.parameters()]
    held = (getattr(p, "ds_tensor", p) for p in found)
    return list({id(tensor): tensor for tensor in held}.values())


def optimizer_states(*engines: Any) -> list[Tensor]:  # noqa: ANN401
    """Moments of engines' optimizers, and the fp32 weights that they keep beside the model's."""
    found: list[Tensor] = []
    for engine in engines:
        own = {id(p) for p in engine.module.parameters()}
        adam = getattr(engine.optimizer, "optimizer", engine.optimizer)
        for group in adam.param_groups:
            found += [p for p in group["params"] if id(p) not in own]
        for state in adam.state.values():
            found += [t for t in state.values() if isinstance(t, Tensor) and t.dim() > 0]
    return list({id(tensor): tensor for tensor in found}.values())
