"""The project page's figures: progress, pace, agreement, gold questions."""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

Ranks = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the figures need of an answer."""

    ranks: Ranks | None
    """`[responses]`; None when the labeler could not judge."""
    seconds: float
    saved: float
    day: str
    comment: str
    corrected: bool


@dataclass(slots=True)
class _Prompt:
    """What the figures need of a prompt; by labeler."""

    answers: dict[str, _Answer] = field(default_factory=dict)
    w: float | None = None
    taus: list[tuple[str, float]] = field(default_factory=list)

    def ranks(self) -> dict[str, Ranks]:
        return {name: a.ranks for name, a in self.answers.items() if a.ranks is not None}


class Summary:
    """The figures of a project that is at work. What was worked out for a prompt is kept until
    somebody answers it again, so that only the first look at a large project takes seconds."""

    def __init__(self, project: Project, labelers: Sequence[str]) -> None:
        """Args:
        labelers: names that have a link now; others who answered are shown besides.
        """
        self._project, self._labelers = project, labelers
        self._prompts: dict[str, _Prompt] = defaultdict(_Prompt)
        self._units: Counter[tuple[float, ...]] = Counter()
        self._seen = 0

    def figures(self, now: float) -> dict[str, Any]:
        """Everything that the project page shows, JSON-able. For one thread at a time.

        Args:
            now: seconds since 1970.
        """
        self._read_new()
        project, item_of = self._project, self._project.item
        known = {key: bool(item_of(key).known) for key in self._prompts}
        ordinary = {key: p for key, p in self._prompts.items() if not known[key]}
        by_labeler: dict[str, list[_Answer]] = defaultdict(list)
        for prompt in ordinary.values():
            for name, answer in prompt.answers.items():
                by_labeler[name].append(answer)
        golden: dict[str, list[tuple[_Answer, Item]]] = defaultdict(list)
        for key in (key for key, is_gold in known.items() if is_gold):
            for name, answer in self._prompts[key].answers.items():
                golden[name].append((answer, item_of(key)))
        taus: dict[str, list[float]] = defaultdict(list)
        for prompt in ordinary.values():
            for name, tau in prompt.taus:
                taus[name].append(tau)
        answers = [a for each in by_labeler.values() for a in each]
        w = {key: p.w for key, p in ordinary.items() if p.w is not None}
        per_prompt = project.rules.per_prompt
        counts = [len(p.answers) for p in ordinary.values()]
        names = list(dict.fromkeys([*self._labelers, *sorted({*by_labeler, *golden})]))
        return {
            "now": now,
            "prompts": len(project.samples),
            "complete": sum(n >= per_prompt for n in counts),
            "begun": sum(0 < n < per_prompt for n in counts),
            "answers": len(answers),
            "wanted": len(project.samples) * per_prompt,
            "per_prompt": per_prompt,
            "gold": len(project.gold),
            "cannot_judge": sum(a.ranks is None for a in answers),
            "corrected": sum(a.corrected for a in answers),
            "comments": sum(bool(a.comment) for a in answers),
            "alpha": krippendorffs_alpha(+self._units),
            "mean_w": fmean(w.values()) if w else None,
            "histogram": histogram(list(w.values())),
            "days": days(by_labeler),
            "labelers": [
                labeler_row(
                    name,
                    by_labeler[name],
                    golden[name],
                    fmean(taus[name]) if taus[name] else None,
                    has_link=name in self._labelers,
                )
                for name in names
            ],
            "disagreed": [
                _disagreed(item_of(key), ordinary[key])
                for key in heapq.nsmallest(MOST_DISAGREED, w, key=w.get)
                if w[key] < 1
            ],
        }

    def _read_new(self) -> None:
        self._seen, new = self._project.storage.answers_since(self._seen)
        by_item: dict[str, list[Saved]] = defaultdict(list)
        for saved in new:
            by_item[saved.item].append(saved)
        for key, answers in by_item.items():
            item = self._project.item(key)
            if not item:
                continue
            prompt = self._prompts[key]
            before = prompt.ranks()
            for saved in answers:
                first = prompt.answers.get(saved.labeler)
                prompt.answers[saved.labeler] = _answer(saved, first)
            if item.known:
                continue
            by = prompt.ranks()
            prompt.w, prompt.taus = kendalls_w(list(by.values())), taus_of(by)
            self._units.subtract(units(before))
            self._units.update(units(by))


def _answer(saved: Saved, before: _Answer | None) -> _Answer:
    content = saved.content
    # A correction is no answer of another day: yesterday's work would seem to become less.
    day = before.day if before else datetime.fromtimestamp(saved.saved).date().isoformat()
    return _Answer(
        None if content["cannot_judge"] else ranks_of(content["order"]),
        content["seconds"],
        saved.saved,
        day,
        content["comment"],
        saved.revision > 1,
    )


def ranks_of(order: Sequence[Sequence[int]]) -> Ranks:
    """Ranks by response of groups of tied responses, best first; tied ones share their mean place.

    Returns:
        `[responses]`.
    """
    ranks: dict[int, float] = {}
    for group in order:
        place = len(ranks) + (1 + len(group)) / 2
        ranks |= dict.fromkeys(group, place)
    return tuple(ranks[i] for i in range(len(ranks)))


def units(by: Mapping[str, Ranks]) -> list[tuple[float, ...]]:
    """What Krippendorff's alpha is worked out from: for each response of a prompt its ranks by all
    labelers, in the order of size."""
    return [tuple(sorted(unit)) for unit in zip(*by.values(), strict=True)]


def taus_of(by: Mapping[str, Ranks]) -> list[tuple[str, float]]:
    """Each labeler's tau-b with every other labeler of one prompt, where it is defined."""
    taus = []
    for (name, mine), (other, theirs) in itertools.combinations(by.items(), 2):
        tau = kendalls_tau_b(mine, theirs)
        if tau is not None:
            taus += [(name, tau), (other, tau)]
    return taus


def histogram(values: Sequence[float]) -> list[int]:
    """Counts of values in [0, 1] in `BINS` equal bins; 1 falls in the last."""
    counts = [0] * BINS
    for value in values:
        counts[min(int(value * BINS), BINS - 1)] += 1
    return counts


def days(by_labeler: Mapping[str, Sequence[_Answer]]) -> list[dict[str, Any]]:
    """For each day on which anybody answered for the first time, by the server's clock, answers by
    labeler."""
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for name, answers in by_labeler.items():
        for day, count in Counter(a.day for a in answers).items():
            table[day][name] = count
    return [{"day": day, "answers": table[day]} for day in sorted(table)]


def labeler_row(
    name: str,
    ordinary: Sequence[_Answer],
    golden: Sequence[tuple[_Answer, Item]],
    tau: float | None,
    *,
    has_link: bool,
) -> dict[str, Any]:
    """One labeler's row: amount, pace, agreement with the others, accuracy on gold questions."""
    seconds = [a.seconds for a in ordinary]
    worked = sum(seconds)
    right = [share_agreed(a.ranks, item.known) for a, item in golden if a.ranks is not None]
    right = [share for share in right if share is not None]
    return {
        "name": name,
        "has_link": has_link,
        "answers": len(ordinary),
        "cannot_judge": sum(a.ranks is None for a in ordinary),
        "median_seconds": median(seconds) if seconds else None,
        "per_hour": len(ordinary) * 3600 / worked if worked else None,
        "last": max((a.saved for a in (*ordinary, *(a for a, _ in golden))), default=None),
        "tau": tau,
        "gold": len(right),
        "gold_right": fmean(right) if right else None,
    }


def _disagreed(item: Item, prompt: _Prompt) -> dict[str, Any]:
    return {
        "key": item.key,
        "w": prompt.w,
        "messages": [{"role": m.role, "content": m.content} for m in item.messages],
        "responses": list(item.responses),
        "ranks": {name: list(row) for name, row in sorted(prompt.ranks().items())},
        "comments": {name: a.comment for name, a in prompt.answers.items() if a.comment},
    }
