"""What a model's forward and backward pass hold in memory, found by running them without data.

The real model runs on PyTorch's meta device, where tensors have shapes and no content. Every
tensor that an operation makes is counted from its birth to its end, so that no formula has to know
the architecture: what autograd keeps, what is worked out again under gradient checkpointing, and
what comes and goes between are all there. Parameters are not counted.
"""

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ACTIVATIONS, LOGITS, GRADIENTS = "activations", "logits", "gradients"


@dataclass(frozen=True)
class Trace:
    """Bytes above the parameters, by what takes them."""

    forward: dict[str, int]
    """At the peak of the forward pass; with gradients off, of the whole call."""
    backward: dict[str, int] = field(default_factory=dict)
    """At the peak of the backward pass, of which gradients are one part: they grow while
    activations go."""
    again: dict[str, int] = field(default_factory=dict)
    """At the peak of a backward pass that begins with all gradients there: a second micro-batch."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside."""

    def __init__(self, logits_width: int) -> None:
        """Args:
        logits_width: last dimension by which logits are told from other activations.
        """
        super().__init__()
        self.logits_width = logits_width
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.peak_without_gradients = 0
        self._known: dict[int, tuple[str, int, Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Runs an operation, and takes note of new storages."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return out

    def forget_peak(self) -> None:
        """The peak begins anew, at what is live now."""
        self.peak, self.peak_without_gradients = Counter(self.now), 0

    def ignore(self, tensors: Iterator[Tensor]) -> None:
        """These were there before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._known[storage._cdata] = ("", 0, weakref.ref(storage))

    def is_gradient(self, tensor: Tensor) -> None:
        """What was counted as an activation is a parameter's gradient."""
        storage = tensor.untyped_storage()
        kind, size, watch = self._known.get(storage._cdata, ("", 0, None))
        if kind and kind != GRADIENTS:
            self.now[kind] -= size
            self.now[GRADIENTS] += size
            self._known[storage._cdata] = (GRADIENTS, size, watch)
            self._look()

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        is_logits = tensor.dim() > 1 and tensor.shape[-1] == self.logits_width
        kind = LOGITS if is_logits else ACTIVATIONS
        self._known[key] = (kind, size, weakref.ref(storage, lambda _: self._gone(key)))
        self.now[kind] += size
        self._look()

    def _gone(self, key: int) -> None:
        kind, size, _ = self._known.pop(key)
        if kind:
            self.now[kind] -= size

    def _look(self) -> None:
        total = sum(self.now.values())
        if total > sum(self.peak.values()):
            self.peak = Counter(self.now)
        self.peak_without_gradients = max(self.peak_without_gradients, total - self.now[GRADIENTS])


def trace(model: nn.Module, call: Callable[[], Tensor], logits_width: int, *, train: bool) -> Trace:
    """Runs `call`, a forward of `model` that ends in one number, and with `train` its backward."""
    with attention_by_blocks(), LiveBytes(logits_width) as live:
        live.ignore(iter([*model.parameters(), *model.buffers()]))
        with torch.set_grad_enabled(train):
            loss = call()
        forward = dict(live.peak)
        if not train:
            return Trace(forward)
        wanted = [p for p in model.parameters() if p.requires_grad]
        hooks = [
            p.register_post_accumulate_grad_hook(lambda p: live.is_gradient(p.grad)) for p in wanted
        ]
        live.forget_peak()
        loss.backward()
        backward, alone = dict(live.peak), live.peak_without_gradients
        for hook in hooks:
            hook.remove()
        for p in wanted:
            p.grad = None
    gradients = sum(p.numel() * p.element_size() for p in wanted)
    again = {ACTIVATIONS: alone - backward.get(LOGITS, 0), LOGITS: backward.get(LOGITS, 0)}
    return Trace(forward, backward, again | {GRADIENTS: gradients})


class _Attention(torch.autograd.Function):
    """What the fused attention kernels keep: query, key, value, result, and a number per row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:  # noqa: ANN401
        out = torch.empty_like(query)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums, *([] if mask is None else [mask]))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # noqa: ANN401
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


@contextlib.contextmanager
def attention_by_blocks() -> Iterator[None]:
    """On the meta device PyTorch would take the kernel that keeps the whole matrix of scores."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        **_: Any,  # noqa: ANN401
    ) -> Tensor:
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = attn_mask.to(query.dtype)  # one for each layer, as PyTorch does
        return _Attention.apply(query, key, value, attn_mask)

    from transformers import masking_utils

    with (
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attend),
        # It looks into positions for the beginnings of packed rows.
        mock.patch.object(masking_utils, "find_packed_sequence_indices", lambda *_: None),
    ):
        yield
