"""What a model's forward and backward pass hold in memory, found by running them without data.

The real model runs on PyTorch's meta device, where tensors have shapes and no content. Every
tensor that an operation makes is counted from its birth to its end, so that no formula has to know
the architecture: what autograd keeps, what is worked out again under gradient checkpointing, and
what comes and goes between are all there. Parameters are not counted.
"""

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

KINDS = ACTIVATIONS, LOGITS, GRADIENTS = "activations", "logits", "gradients"


Kinds = dict[str, int]
"""What takes memory -> bytes."""


class Trace(NamedTuple):
    """Bytes above the parameters, by what takes them, at the worst moment of each part."""

    forward: Kinds
    """Of the forward pass; with gradients off, of the whole call."""
    early: Kinds
    """Of the backward pass, until half of the gradients are there: activations go, they come."""
    late: Kinds
    """Of its other half."""
    alone: Kinds
    """Of the backward pass, if each gradient went as soon as it was there."""

    def flat(self) -> list[int]:
        """As numbers, in a fixed order."""
        return [part.get(kind, 0) for part in self for kind in KINDS]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Trace":
        """The inverse of `flat`."""
        size = len(KINDS)
        parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        return cls(*(dict(zip(KINDS, part, strict=True)) for part in parts))


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
        self.alone: Counter[str] = Counter()
        self._known: dict[int, tuple[str, int, Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """Runs an operation, and takes note of new storages."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return out

    def forget_peak(self) -> None:
        """The peaks begin anew, at what is live now."""
        self.peak, self.alone = Counter(self.now), self._without_gradients()

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
        if self.now.total() > self.peak.total():
            self.peak = Counter(self.now)
        if self.now.total() - self.now[GRADIENTS] > self.alone.total():
            self.alone = self._without_gradients()

    def _without_gradients(self) -> Counter[str]:
        return Counter({kind: size for kind, size in self.now.items() if kind != GRADIENTS})


def trace(model: nn.Module, call: Callable[[], Tensor], logits_width: int, *, train: bool) -> Trace:
    """Runs `call`, a forward of `model` that ends in one number, and with `train` its backward."""
    with attention_by_blocks(), LiveBytes(logits_width) as live:
        live.ignore(iter([*model.parameters(), *model.buffers()]))
        with torch.set_grad_enabled(train):
            loss = call()
        forward = dict(live.peak)
        if not train:
            return Trace(forward, {}, {}, {})
        wanted = [p for p in model.parameters() if p.requires_grad]
        total = sum(p.numel() * p.element_size() for p in wanted)
        early: Kinds = {}

        def note(parameter: Tensor) -> None:
            live.is_gradient(parameter.grad)
            if not early and 2 * live.now[GRADIENTS] >= total:
                early.update(live.peak)
                live.peak = Counter(live.now)

        hooks = [p.register_post_accumulate_grad_hook(note) for p in wanted]
        live.forget_peak()
        loss.backward()
        for hook in hooks:
            hook.remove()
        for p in wanted:
            p.grad = None
    return Trace(forward, early, dict(live.peak), dict(live.alone))


class _Attention(torch.autograd.Function):
    """What the fused attention kernels keep: query, key, value, result, and a number per row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = torch.empty_like(query)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums, *([] if mask is None else [mask]))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
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
        **_: Any,
    ) -> Tensor:
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = attn_mask.to(query.dtype)  # one for each layer, as PyTorch does
        return _Attention.apply(query, key, value, attn_mask)

    from transformers import PreTrainedModel, masking_utils

    with (
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attend),
        # These look at values: of positions for the beginnings of packed rows, of ids for padding.
        mock.patch.object(masking_utils, "find_packed_sequence_indices", lambda *_: None),
        mock.patch.object(
            PreTrainedModel, "warn_if_padding_and_no_attention_mask", lambda *_: None
        ),
    ):
        yield
