"""Rankings of the same prompt and responses in several files become one, of all labelers."""

import re
from collections.abc import Sequence
from dataclasses import replace

from common.data.merging import is_older, key_of, numbers_among
from common.data.records import Ranking

Ranks = tuple[float | None, ...]


def join_rankings(rankings: Sequence[Ranking]) -> tuple[list[Ranking], int]:
    """Rankings in which no two files rank the same prompt and responses apart.

    Prompts are the same where messages and responses are, whatever the responses' order. A labeler
    whom several rows name counts once, by the order that was saved last, or, where a date is not
    known, by the last row's. Rows of a single file stay apart, and
    so do pairs that bring numbers of their own.

    Returns:
        the rankings, joined ones where the first of them stood, and how many were joined ones.
    """
    alike: dict[str, list[Ranking]] = {}
    for ranking in rankings:
        if not ranking.flaw and ranking.numbers is None:
            alike.setdefault(key_of(ranking.messages, ranking.responses), []).append(ranking)
    firsts: dict[int, Ranking] = {}
    others: set[int] = set()
    for group in alike.values():
        if len({_file_of(ranking) for ranking in group}) > 1:
            firsts[id(group[0])] = _joined(group)
            others.update(id(ranking) for ranking in group[1:])
    return [firsts.get(id(r), r) for r in rankings if id(r) not in others], len(firsts)


def _joined(group: Sequence[Ranking]) -> Ranking:
    first = group[0]
    named: dict[str, Ranks] = {}
    times: dict[str, str] = {}
    few: list[Ranks] = []
    """Orders of one response: they count as orders, and name no judge."""
    unnamed: list[Ranks] = []
    for ranking in group:
        numbers = numbers_among(ranking.responses, first.responses)
        back = sorted(range(len(numbers)), key=numbers.__getitem__)
        moved = [tuple(row[i] for i in back) for row in ranking.ranks]
        compared = [row for row in moved if sum(rank is not None for rank in row) > 1]
        if len(ranking.judges) == len(compared):
            few += [row for row in moved if row not in compared]
            saved = ranking.saved or [""] * len(compared)
            for name, row, time in zip(ranking.judges, compared, saved, strict=True):
                if not is_older({"saved": time}, {"saved": times.get(name)}):
                    named[name], times[name] = row, time
        else:
            unnamed += moved
    labelers = tuple(dict.fromkeys(name for r in group for name in r.labelers))
    silent = [name for r in group for name in r.labelers if name not in r.judges]
    # Whoever could not judge in two files, or judged in the other, is no further one.
    twice = len(silent) - len(set(silent) - set(named))
    return replace(
        first,
        ranks=(*named.values(), *few, *unnamed),
        facts=next((r.facts for r in group if r.facts is not None), None),
        absent=max(0, sum(r.absent for r in group) - twice),
        labelers=labelers,
        judges=tuple(named),
        saved=tuple(times.values()),
    )


def _file_of(ranking: Ranking) -> str:
    """The origin without the row: "path:line" or "path[row]"."""
    return re.sub(r"(:\d+|\[[^\[\]]*\])$", "", ranking.origin)
