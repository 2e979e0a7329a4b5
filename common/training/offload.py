"""What is not at work waits in the host's memory: optimizer states, models that only score.

DeepSpeed's own `offload_states` does this for ZeRO-3 with one optimizer of its own; this does it
under any stage.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn


class Waiting:
    """Tensors that can be sent to the host's memory, which frees their own, and fetched back.

    Whole storages are emptied and filled again, so that other views of them stay valid: DeepSpeed
    keeps several of each optimizer state.
    """

    def __init__(self, tensors: Callable[[], Sequence[Tensor]], *, constant: bool = False) -> None:
        """Args:
        tensors: which ones, asked anew at each sending; they own their storages.
        constant: their values never change, so that one copy is enough.
        """
        self.tensors = tensors
        self.constant = constant
        self._copies: dict[UntypedStorage, Tensor] = {}
        self._away: list[UntypedStorage] = []

    @torch.no_grad()
    def send(self) -> None:
        """To the host's memory; nothing may look at the tensors until they are fetched."""
        if self._away:
            return
        copies: dict[UntypedStorage, Tensor] = {}
        for storage in storages_of(self.tensors()):
            copy = self._copies.get(storage)
            if copy is None or len(copy) != storage.nbytes():
                copy = torch.empty(storage.nbytes(), dtype=torch.uint8)
                if storage.device.type == "cuda":
                    page_lock(copy)
                copy.copy_(_bytes_of(storage))
            elif not self.constant:
                copy.copy_(_bytes_of(storage))
            copies[storage] = copy
            storage.resize_(0)
        self._copies, self._away = copies, list(copies)

    @torch.no_grad()
    def fetch(self) -> None:
        """Back to where they were, bit for bit."""
        for storage in self._away:
            copy = self._copies[storage]
            storage.resize_(len(copy))
            _bytes_of(storage).copy_(copy)
        self._away = []

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


def page_lock(tensor: Tensor) -> None:
    """Makes a host tensor's memory one that a card reads and writes at full speed.

    As much as there is and no more: PyTorch's own pinned memory is rounded up to a power of two,
    which for the states of a large model may be the half that the host does not have. Where the
    system does not allow it, copies are slower.
    """
    runtime = torch.cuda.cudart()
    if not int(runtime.cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0)):
        weakref.finalize(tensor, runtime.cudaHostUnregister, tensor.data_ptr())


def storages_of(tensors: Sequence[Tensor]) -> list[UntypedStorage]:
    """Each storage once; with a card, only those that lie on it.

    A tensor whose storage cannot be emptied (it is a file in memory) gets one of its own.
    """
    found: dict[UntypedStorage, None] = {}
    for tensor in tensors:
        if torch.cuda.is_available() and not tensor.is_cuda:
            continue  # DeepSpeed's own offload has it there already
        if not tensor.untyped_storage().resizable():
            tensor.data = tensor.data.clone()
        found[tensor.untyped_storage()] = None
    return list(found)


def weights_of(*models: Any) -> list[Tensor]:  # noqa: ANN401
    """What this rank holds of the models' weights: whole ones, or ZeRO-3's shards."""
    found = [p for m in models if isinstance(m, nn.Module) for p in m.parameters()]
    return [getattr(p, "ds_tensor", p) for p in found]


def optimizer_states(*engines: Any) -> list[Tensor]:  # noqa: ANN401
    """Moments of engines' optimizers, and the fp32 weights that they keep beside the model's."""
    found: list[Tensor] = []
    for engine in engines:
        own = {id(p) for p in engine.module.parameters()}
        adam = getattr(engine.optimizer, "optimizer", engine.optimizer)
        for group in adam.param_groups:
            found += [p for p in group["params"] if id(p) not in own]
        # ZeRO-3 empties the groups between steps, and keeps its weights here.
        found += getattr(engine.optimizer, "fp32_partitioned_groups_flat", [])
        for state in adam.state.values():
            found += [t for t in state.values() if isinstance(t, Tensor) and t.dim() > 0]
    return found


def _bytes_of(storage: UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
