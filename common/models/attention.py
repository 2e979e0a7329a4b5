"""Which tokens a model's attention layers see, as its config says it."""

from typing import Any

import torch
from torch import Tensor

KNOWN = {"full_attention", "sliding_attention"}


def layer_kinds(config: Any) -> set[str]:
    """Kinds of the model's layers, by transformers' names: full_attention, sliding_attention, …"""
    layers = getattr(config, "layer_types", None)
    if layers:
        return set(layers)
    sliding = getattr(config, "sliding_window", None) is not None
    return {"sliding_attention" if sliding else "full_attention"}


def takes_masks_over_pairs(model: Any) -> bool:
    """Whether a model's layers obey a mask `[rows, 1, queries, keys]` that is passed to it.

    Args:
        model: a transformers model; recurrent layers would ignore the mask, and positions that
            are built into the mask (ALiBi) would be lost.
    """
    config = model.config
    alibi = getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt")
    return layer_kinds(config) <= KNOWN and not alibi and config._attn_implementation == "sdpa"


def decoding_masks(config: Any, columns: Tensor, width: int) -> Tensor | dict[str, Tensor]:
    """What one new token a row sees of a cache in which token n stands in column n.

    Args:
        columns: `[rows]` int64: the new token's own column.
        width: columns of the cache.

    Returns:
        `[rows, 1, 1, width]` bool, or one such mask for each kind of layer.
    """
    places = torch.arange(width, device=columns.device)
    own = columns[:, None, None, None]
    masks = {"full_attention": places <= own}
    kinds = layer_kinds(config)
    if "sliding_attention" in kinds:
        masks["sliding_attention"] = masks["full_attention"] & (
            places > own - config.sliding_window
        )
    chosen = {kind: masks[kind] for kind in sorted(kinds)}
    return chosen if len(chosen) > 1 else next(iter(chosen.values()))
