"""Who gets which prompt, and in which order its responses are shown. Pure functions."""

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence


def choose(
    prompts: Sequence[str], taken: Mapping[str, int], mine: Collection[str], per_prompt: int
) -> str | None:
    """The next prompt for a labeler: of those with a free place the one with fewest left.

    Prompts that others have begun come first, so that they are complete, and their agreement is
    known, as early as can be.

    Args:
        prompts: keys of all prompts, in the order of the file.
        taken: key -> places that are answered or on somebody's desk; absent means none.
        mine: keys that this labeler has answered.
        per_prompt: places that each prompt has.

    Returns:
        A key, or None when there is no free place.
    """
    best: str | None = None
    for key in prompts:
        used = taken.get(key, 0)
        if used >= per_prompt or key in mine:
            continue
        if used == per_prompt - 1:
            return key
        if best is None or used > taken.get(best, 0):
            best = key
    return best


def gold_is_due(ordinary: int, gold: int, every: int, seed: int, labeler: str) -> bool:
    """Whether a labeler's next prompt is a gold question.

    One comes up in every run of `every` ordinary prompts, at a place drawn per labeler.

    Args:
        ordinary: prompts that the labeler has answered, gold ones aside.
        gold: gold questions that the labeler has answered.
    """
    return ordinary >= gold * every + _random(seed, "gold place", labeler, gold).randrange(every)


def gold_to_come(ordinary: int, done: int, gold: int, every: int, seed: int, labeler: str) -> int:
    """How many more gold questions a labeler gets.

    Args:
        ordinary: prompts that the labeler will have answered in the end, gold ones aside.
        done: gold questions that the labeler has answered.
        gold: gold questions that there are.
    """
    more = 0
    while done + more < gold and gold_is_due(ordinary, done + more, every, seed, labeler):
        more += 1
    return more


def next_gold(gold: Sequence[str], mine: Collection[str], seed: int, labeler: str) -> str | None:
    """The next gold question of this labeler, of those not answered, in an order of the labeler's.

    Returns:
        A key, or None when all are answered.
    """
    order = list(gold)
    _random(seed, "gold order", labeler).shuffle(order)
    return next((key for key in order if key not in mine), None)


def shown_order(responses: int, seed: int, labeler: str, key: str) -> list[int]:
    """The order in which a labeler sees the responses to a prompt.

    Returns:
        `[responses]`: the number of the response at each place of the page.
    """
    order = list(range(responses))
    _random(seed, "shown", labeler, key).shuffle(order)
    return order


def _random(seed: int, *names: object) -> random.Random:
    """Draws that depend on nothing but these names, on any machine."""
    text = "\x00".join(map(str, (seed, *names)))
    return random.Random(hashlib.sha256(text.encode()).digest())
