"""The project page's figures: progress, pace, agreement, gold questions."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import fmean, median
from typing import Any

from common.data.agreement import kendalls_w
from step2_reward.annotation.agreement import (
    kendalls_tau_b,
    krippendorffs_alpha,
    share_agreed,
)
from step2_reward.annotation.items import Item
from step2_reward.annotation.project import Project
from step2_reward.annotation.storage import Saved

MOST_DISAGREED = 12
"""Prompts that the page shows in full."""
BINS = 10
"""Of the histogram of Kendall's W."""


def summarize(project: Project, labelers: Sequence[str], now: float) -> dict[str, Any]:
    """Everything that the project page shows, JSON-able.

    Args:
        labelers: names that have a link now; others who answered are shown besides.
        now: seconds since 1970.
    """
    answers = [a for a in project.storage.answers() if project.item(a.item)]
    ordinary = [a for a in answers if not project.item(a.item).known]
    golden = [a for a in answers if project.item(a.item).known]
    ranks: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for answer in ordinary:
        if not answer.content["cannot_judge"]:
            ranks[answer.item][answer.labeler] = ranks_of(answer.content["order"])
    w = {key: kendalls_w(list(by.values())) for key, by in ranks.items()}
    defined = {key: value for key, value in w.items() if value is not None}
    per_prompt = project.rules.per_prompt
    counts = Counter(a.item for a in ordinary)
    names = list(dict.fromkeys([*labelers, *sorted({a.labeler for a in answers})]))
    taus = against_others(ranks)
    return {
        "now": now,
        "prompts": len(project.samples),
        "complete": sum(n >= per_prompt for n in counts.values()),
        "begun": sum(0 < n < per_prompt for n in counts.values()),
        "answers": len(ordinary),
        "wanted": len(project.samples) * per_prompt,
        "per_prompt": per_prompt,
        "gold": len(project.gold),
        "cannot_judge": sum(a.content["cannot_judge"] for a in ordinary),
        "corrected": sum(a.revision > 1 for a in ordinary),
        "comments": sum(bool(a.content["comment"]) for a in ordinary),
        "alpha": krippendorffs_alpha(units(ranks)),
        "mean_w": fmean(defined.values()) if defined else None,
        "histogram": histogram(list(defined.values())),
        "days": days(ordinary),
        "labelers": [
            labeler_row(
                name,
                [a for a in ordinary if a.labeler == name],
                [a for a in golden if a.labeler == name],
                taus.get(name),
                {item.key: item for item in project.gold},
                has_link=name in labelers,
            )
            for name in names
        ],
        "disagreed": [
            _disagreed(project.item(key), value, ranks[key], ordinary)
            for key, value in sorted(defined.items(), key=lambda pair: pair[1])[:MOST_DISAGREED]
            if value < 1
        ],
    }


def ranks_of(order: Sequence[Sequence[int]]) -> list[float]:
    """Ranks by response of groups of tied responses, best first; tied ones share their mean place.

    Returns:
        `[responses]`.
    """
    ranks: dict[int, float] = {}
    for group in order:
        place = len(ranks) + (1 + len(group)) / 2
        ranks |= dict.fromkeys(group, place)
    return [ranks[i] for i in range(len(ranks))]


def units(ranks: Mapping[str, Mapping[str, Sequence[float]]]) -> list[tuple[float, ...]]:
    """What Krippendorff's alpha is worked out from: for each response its ranks by all labelers."""
    return [unit for by in ranks.values() for unit in zip(*by.values(), strict=True)]


def against_others(ranks: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Each labeler's mean tau-b with every other labeler of the same prompt, over all prompts."""
    taus: dict[str, list[float]] = defaultdict(list)
    for by in ranks.values():
        for (name, mine), (other, theirs) in itertools.combinations(by.items(), 2):
            tau = kendalls_tau_b(mine, theirs)
            if tau is not None:
                taus[name].append(tau)
                taus[other].append(tau)
    return {name: fmean(values) for name, values in taus.items()}


def histogram(values: Sequence[float]) -> list[int]:
    """Counts of values in [0, 1] in `BINS` equal bins; 1 falls in the last."""
    counts = [0] * BINS
    for value in values:
        counts[min(int(value * BINS), BINS - 1)] += 1
    return counts


def days(answers: Sequence[Saved]) -> list[dict[str, Any]]:
    """For each day on which anybody answered, by the server's clock, answers by labeler."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        table[datetime.fromtimestamp(answer.saved).date().isoformat()][answer.labeler] += 1
    return [{"day": day, "answers": dict(table[day])} for day in sorted(table)]


def labeler_row(
    name: str,
    ordinary: Sequence[Saved],
    golden: Sequence[Saved],
    tau: float | None,
    gold: Mapping[str, Item],
    *,
    has_link: bool,
) -> dict[str, Any]:
    """One labeler's row: amount, pace, agreement with the others, accuracy on gold questions."""
    seconds = [a.content["seconds"] for a in ordinary]
    worked = sum(seconds)
    right = [
        share_agreed(ranks_of(a.content["order"]), gold[a.item].known)
        for a in golden
        if not a.content["cannot_judge"]
    ]
    right = [share for share in right if share is not None]
    return {
        "name": name,
        "has_link": has_link,
        "answers": len(ordinary),
        "cannot_judge": sum(a.content["cannot_judge"] for a in ordinary),
        "median_seconds": median(seconds) if seconds else None,
        "per_hour": len(ordinary) * 3600 / worked if worked else None,
        "last": max((a.saved for a in (*ordinary, *golden)), default=None),
        "tau": tau,
        "gold": len(right),
        "gold_right": fmean(right) if right else None,
    }


def _disagreed(
    item: Item, w: float, ranks: Mapping[str, Sequence[float]], answers: Sequence[Saved]
) -> dict[str, Any]:
    return {
        "key": item.key,
        "w": w,
        "messages": [{"role": m.role, "content": m.content} for m in item.messages],
        "responses": list(item.responses),
        "ranks": {name: list(row) for name, row in sorted(ranks.items())},
        "comments": {
            a.labeler: a.content["comment"]
            for a in answers
            if a.item == item.key and a.content["comment"]
        },
    }
