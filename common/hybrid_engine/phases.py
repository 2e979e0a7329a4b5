"""The switch between training and generation for a model that lives in a DeepSpeed engine."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

from torch import nn

from common.models.lora import merged_for_now, weights_to_merge
from common.models.policy import language_model
from common.training.distributed import any_rank, free_memory
from common.training.engine import gathered_parameters

HOOK_TABLES = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)

FREE_SHARE = 0.8
"""Share of the free memory that gathered weights may take; the cache needs some, too."""


@contextlib.contextmanager
def generation_phase(engine: Any, *, whole: bool = True, merge: bool = True) -> Iterator[nn.Module]:
    """The plain language model inside `engine` in eval mode. A collective.

    Under ZeRO-3 the weights are gathered once for the whole phase, and DeepSpeed's per-module
    hooks are taken off for it: with the weights there, they only cost time (more than the gather
    does). Everything is put back whatever happens inside.

    Args:
        engine: a DeepSpeed engine, or a plain model (then only the mode is switched, and adapters
            may be merged).
        whole: gather all weights. Otherwise sharded ones stay so, the hooks gather each layer for
            each forward, and adapters stay beside their weights: every forward is a collective.
        merge: add adapters to the weights beneath them, of which a copy is kept meanwhile.
    """
    model = language_model(engine)
    was_training = model.training
    sharded = is_sharded(model)
    with contextlib.ExitStack() as stack:
        if whole or not sharded:
            stack.enter_context(gathered_parameters(model))
            if merge:
                stack.enter_context(merged_for_now(model))
            if sharded:
                stack.enter_context(_without_hooks(model))
        model.eval()
        stack.callback(model.train, was_training)
        yield model


def gathers_whole(
    model: nn.Module, gather: Literal["auto", "all", "layers"], *, merge: bool = True
) -> bool:
    """Whether a phase gathers all weights at once; `auto` does where they fit. A collective.

    Args:
        model: perhaps sharded by ZeRO-3.
        merge: weights that adapters are merged into count twice: both are kept.
    """
    if gather != "auto":
        return gather == "all"
    if not is_sharded(model):
        return True
    parameters = [*model.parameters(), *(weights_to_merge(model) if merge else [])]
    needed = sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in parameters)
    return not any_rank(needed > FREE_SHARE * free_memory())


def is_sharded(model: nn.Module) -> bool:
    """Whether ZeRO-3 spreads the model's weights over ranks."""
    return any(hasattr(p, "ds_id") for p in model.parameters())


@contextlib.contextmanager
def _without_hooks(model: nn.Module) -> Iterator[None]:
    """Empties every module's forward-hook tables, and fills them again in their order."""
    taken = []
    try:
        for module in model.modules():
            for name in HOOK_TABLES:
                table = getattr(module, name)
                if table:
                    taken.append((table, table.copy()))
                    table.clear()
        yield
    finally:
        for table, entries in taken:
            table.update(entries)
