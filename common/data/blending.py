"""Mixing data sets by weight, and splitting by prompt."""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Protocol, TypeVar

from common.errors import UserError

T = TypeVar("T")


class HasPromptKey(Protocol):
    """Every record of `common.data.records`."""

    @property
    def prompt_key(self) -> str: ...


K = TypeVar("K", bound=HasPromptKey)


def blend(sets: Sequence[Sequence[T]], weights: Sequence[float], *, seed: int) -> list[T]:
    """One epoch of several data sets, shuffled.

    Each example of a set with weight w comes up w times in expectation: at weight 2 twice, at 0.5
    a half of the set drawn by `seed`, at 1.5 each once and a drawn half once more. What is drawn is
    drawn once: at 0.5 the other half of the set is not seen in later epochs either.

    Raises:
        UserError: nothing is left.
    """
    if len(sets) != len(weights):
        raise ValueError(f"{len(sets)} sets, but {len(weights)} weights")
    blended: list[T] = []
    for i, (items, weight) in enumerate(zip(sets, weights, strict=True)):
        stream = random.Random(f"{seed}/blend/{i}")
        whole = math.floor(weight)
        share = (weight - whole) * len(items)
        # Rounded up or down at random, so that the expectation holds for small sets too.
        drawn = math.floor(share) + (stream.random() < share - math.floor(share))
        blended += [*items] * whole + stream.sample(list(items), drawn)
    if not blended:
        raise UserError("blending the data sets leaves no example: raise a weight or add data")
    random.Random(f"{seed}/shuffle").shuffle(blended)
    return blended


def split_by_prompt(
    items: Sequence[K],
    *,
    fraction: float | None = None,
    count: int | None = None,
    seed: int,
    key: Callable[[K], str] = attrgetter("prompt_key"),
) -> tuple[list[K], list[K]]:
    """Splits records into (training, held out), so that no prompt is on both sides.

    A prompt's side follows from a digest of its key and the seed: with `fraction`, adding or
    removing others moves no prompt (except to keep either side from being empty).

    Args:
        fraction: share of the prompts to hold out, in expectation.
        count: number of prompts (not records) to hold out, in place of `fraction`.
        key: what counts as the same prompt; it must be the same wherever `prompt_key` is.

    Raises:
        UserError: fewer than two different prompts, a fraction outside (0, 1), or a count that
            would leave nothing to train on.
    """
    if (fraction is None) == (count is None):
        raise ValueError("give either a fraction or a count")
    keys = [key(item) for item in items]
    position = {name: _position(name, seed) for name in keys}
    prompts = sorted(position, key=lambda name: (position[name], name))
    if len(prompts) < 2:
        raise UserError(
            f"a held-out split needs at least two different prompts, the data has {len(prompts)}"
        )
    if count is None:
        if not 0 < fraction < 1:
            raise UserError(f"the held-out share must lie between 0 and 1, not {fraction}")
        count = sum(position[name] < fraction for name in prompts)
        count = min(max(count, 1), len(prompts) - 1)
    elif not 0 < count < len(prompts):
        raise UserError(
            f"cannot hold out {count} prompts: the data has {len(prompts)} different ones, and "
            "both sides need at least one"
        )
    held_out = set(prompts[:count])
    return (
        [item for item, name in zip(items, keys, strict=True) if name not in held_out],
        [item for item, name in zip(items, keys, strict=True) if name in held_out],
    )


def _position(key: str, seed: int) -> float:
    """A number in [0, 1) that is fixed for a prompt and a seed."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
