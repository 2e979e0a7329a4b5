"""Who ranked: people, simulated labelers or a language model; called so wherever they appear."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.data.labeled import AI

SIMULATED = "simulated"
"""The name of a simulated labeler, or what it begins with, before a colon and a number."""
PEOPLE, JUDGES, UNNAMED = "people", "ai", "unnamed"
Who = dict[str, Any]
"""`people`, `simulated` and `ai`: names; `unnamed`: how many comparisons name nobody."""


def who_ranked(comparisons: Iterable[Sequence[str]]) -> Who:
    """Names by kind, each once.

    Args:
        comparisons: the names behind each of them. A name that says nothing else is a person's.
    """
    names: set[str] = set()
    unnamed = 0
    for found in comparisons:
        names.update(found)
        unnamed += not found
    who: Who = {PEOPLE: [], SIMULATED: [], JUDGES: []}
    for name in sorted(names):
        who[_kind(name)].append(name)
    return who | {UNNAMED: unnamed}


def in_words(who: Mapping[str, Any]) -> str:
    """ "3 people, 3 simulated labelers, AI feedback by ai:judge"; only AI feedback has its name."""
    parts = []
    for kind, one, several in (
        (PEOPLE, "person", "people"),
        (SIMULATED, "simulated labeler", "simulated labelers"),
    ):
        count = len(who[kind])
        parts += [f"{count} {one if count == 1 else several}"] * bool(count)
    parts += [f"AI feedback by {', '.join(who[JUDGES])}"] * bool(who[JUDGES])
    if not parts:
        return "the data does not say"
    unsaid = f"; of {who[UNNAMED]} comparisons the data does not say"
    return ", ".join(parts) + unsaid * bool(who[UNNAMED])


def limits_of(who: Mapping[str, Any]) -> list[str]:
    """For a model's card: that its labelers were no people, or that nobody knows."""
    kinds = [bool(who[kind]) for kind in (PEOPLE, SIMULATED, JUDGES, UNNAMED)]
    some = "Its labelers were" if sum(kinds) == 1 else "Some of its labelers were"
    limits = [f"{some} simulated: a rubric with noise, not people."] * bool(who[SIMULATED])
    if who[JUDGES]:
        limits.append(f"{some} language models ({', '.join(who[JUDGES])}): AI feedback.")
    if who[UNNAMED]:
        limits.append(f"Nobody is named for {who[UNNAMED]} of its pairs: who ranked is not known.")
    return limits


def _kind(name: str) -> str:
    if name.startswith(AI):
        return JUDGES
    return SIMULATED if name.partition(":")[0] == SIMULATED else PEOPLE
