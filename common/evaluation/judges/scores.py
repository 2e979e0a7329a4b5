"""Table 3 and pairwise win rates out of judgements; the unit of every interval is the prompt."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from common.evaluation.criteria import CRITERIA, MAX_POINTS, overall_score
from common.evaluation.judges.judgements import Comparison, Judged, Points
from common.evaluation.metrics.win_rate.equation import (
    Verdict,
    WinTieLoss,
    count_both_orders,
    count_gaps,
    win_rate,
)
from common.evaluation.statistics import bootstrap_ci

Place = tuple[str, int]
"""(split, index) of a prompt."""


def block_of(
    prompts: Sequence[Judged], models: Sequence[str], weights: Mapping[str, float], seed: int
) -> dict[str, Any]:
    """One table: `prompts`, `models` (each with a row per criterion and `overall`), `pairs`.

    A row is `mean` and `ci95`, percent of the most points possible, and `prompts`, on how many it
    rests; None where nobody rated. Each of `pairs` is as `pair_of` and its fellows return it.
    """
    points = {m: {(p.split, p.index): points_of(p, m) for p in prompts} for m in models}
    rows: dict[str, Any] = {}
    for model in models:
        by_prompt = points[model].values()
        rows[model] = {
            name: _row([100.0 * p[name] / MAX_POINTS for p in by_prompt if name in p], seed)
            for name in CRITERIA
        }
        rows[model]["overall"] = _row(
            list(overall_by_prompt(points[model], weights).values()), seed
        )
    pairs: list[dict[str, Any]] = []
    for model, other in combinations(models, 2):
        # The later one is the first named: RLHF against SFT, best-of-n against both.
        pairs += pairs_of(prompts, points, other, model, weights, seed)
    return {"prompts": len(prompts), "models": rows, "pairs": pairs}


def points_of(prompt: Judged, model: str) -> Points:
    """A model's points on a prompt: the mean over those who rated, criterion by criterion."""
    given = [r.points for r in prompt.ratings if r.model == model]
    return {
        name: fmean(p[name] for p in given if name in p)
        for name in CRITERIA
        if any(name in p for p in given)
    }


def overall_by_prompt(
    points: Mapping[Place, Points], weights: Mapping[str, float]
) -> dict[Place, float]:
    """The overall score, 0 to 100, of the prompts on which all that weighs was rated."""
    needed = {name: weight for name, weight in weights.items() if weight}
    return {
        place: overall_score(p, needed) for place, p in points.items() if needed.keys() <= p.keys()
    }


def pairs_of(
    prompts: Sequence[Judged],
    points: Mapping[str, Mapping[Place, Points]],
    model: str,
    other: str,
    weights: Mapping[str, float],
    seed: int,
) -> list[dict[str, Any]]:
    """How often `model` beats `other`: by score, by the labelers' orders, by comparisons.

    Each that there is has `model`, `other`, `by`, `wins`, `ties`, `losses`, `prompts`, `win_rate`
    (0 to 1, ties count half) and its `ci95`. By score there is the mean `difference` too, paired by
    prompt, and its `difference_ci95`; of comparisons, how many were `asked` about (the others have
    the same answer twice) and as shares of them `consistent`, one verdict in both orders, and
    `first_preferred` and `second_preferred`, where the answer won that was shown at that place.
    """
    names = {"model": model, "other": other}
    found = []
    mine, theirs = (overall_by_prompt(points[m], weights) for m in (model, other))
    if gaps := [mine[place] - theirs[place] for place in mine if place in theirs]:
        low, high = bootstrap_ci(gaps, seed, bounds=(-100.0, 100.0))
        difference = {"difference": fmean(gaps), "difference_ci95": [low, high]}
        found.append(names | {"by": "score"} | _counted(gaps, count_gaps, seed) | difference)
    if votes := [v for p in prompts if (v := vote_of(p, model, other)) is not None]:
        found.append(names | {"by": "order"} | _counted(votes, count_gaps, seed))
    if compared := [c for p in prompts if (c := comparison_of(p, model, other))]:
        asked = [(c.shown_first, c.shown_second) for c in compared if not c.same]
        shares = {
            "asked": len(asked),
            "consistent": _share(a == b for a, b in asked),
            "first_preferred": _share((a, b) == ("model", "other") for a, b in asked),
            "second_preferred": _share((a, b) == ("other", "model") for a, b in asked),
        }
        verdicts = [(c.shown_first, c.shown_second) for c in compared]
        found.append(
            names | {"by": "both orders"} | _counted(verdicts, _count_pairs, seed) | shares
        )
    return found


def vote_of(prompt: Judged, model: str, other: str) -> float | None:
    """Labelers who put `model` above `other` minus those who put it below, per labeler: −1 to 1."""
    votes = [
        float((r.ranks[other] > r.ranks[model]) - (r.ranks[other] < r.ranks[model]))
        for r in prompt.rankings
        if model in r.ranks and other in r.ranks
    ]
    return fmean(votes) if votes else None


def comparison_of(prompt: Judged, model: str, other: str) -> Comparison | None:
    """The comparison of two models, as seen from `model`."""
    swapped: dict[Verdict, Verdict] = {"model": "other", "tie": "tie", "other": "model"}
    for found in prompt.comparisons:
        if (found.model, found.other) == (model, other):
            return found
        if (found.other, found.model) == (model, other):
            first, second = swapped[found.shown_second], swapped[found.shown_first]
            return Comparison(model, other, first, second, found.same)
    return None


def _count_pairs(pairs: Iterable[tuple[Verdict, Verdict]]) -> WinTieLoss:
    first, second = zip(*pairs, strict=True)
    return count_both_orders(first, second)


def _counted(values: list[Any], count: Callable[[Iterable[Any]], WinTieLoss], seed: int) -> dict:
    """Counts, the win rate and its interval, over prompts."""
    counts = count(values)
    each = [win_rate(count([value])) for value in values]
    return {
        **counts._asdict(),
        "prompts": len(values),
        "win_rate": win_rate(counts),
        "ci95": list(bootstrap_ci(each, seed, bounds=(0.0, 1.0))),
    }


def _row(percents: list[float], seed: int) -> dict[str, Any]:
    if not percents:
        return {"mean": None, "ci95": None, "prompts": 0}
    ci95 = list(bootstrap_ci(percents, seed, bounds=(0.0, 100.0)))
    return {"mean": fmean(percents), "ci95": ci95, "prompts": len(percents)}


def _share(values: Iterable[bool]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
