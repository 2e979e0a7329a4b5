"""The switch between training and generation for a model that lives in a DeepSpeed engine."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from common.training.engine import gathered_parameters

HOOK_TABLES = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


@contextlib.contextmanager
def generation_phase(engine: Any) -> Iterator[nn.Module]:
    """The plain model inside `engine`, whole on every rank and in eval mode. A collective.

    Under ZeRO-3 the weights are gathered once for the whole phase, and DeepSpeed's per-module
    hooks are taken off for it: with the weights there, they only cost time (more than the gather
    does). Everything is put back whatever happens inside.

    Args:
        engine: a DeepSpeed engine, or a plain model (then only the mode is switched).
    """
    model = getattr(engine, "module", engine)
    was_training = model.training
    with gathered_parameters(model):
        hooks = _take_hooks(model) if _is_sharded(model) else []
        model.eval()
        try:
            yield model
        finally:
            for tables in hooks:
                for table, entries in tables:
                    table.update(entries)
            model.train(was_training)


def _is_sharded(model: nn.Module) -> bool:
    return any(hasattr(p, "ds_id") for p in model.parameters())


def _take_hooks(model: nn.Module) -> list[list[tuple[Any, Any]]]:
    """Empties every module's forward-hook tables and returns what was in them."""
    taken = []
    for module in model.modules():
        tables = []
        for name in HOOK_TABLES:
            table = getattr(module, name)
            if table:
                tables.append((table, table.copy()))
                table.clear()
        taken.append(tables)
    return taken
