"""How far to trust a reward model: accuracy by rank gap, spread, length bias, a probe."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from common.data.records import Pair
from common.data.template import Template
from common.reward.probe import ProbeRow, probe_scores
from common.reward.training import PairObjective
from common.training.supervised import score_examples


def diagnose(
    engine: Any,
    objective: PairObjective,
    template: Template,
    probe: list[ProbeRow],
    batch_size: int,
) -> dict[str, Any]:
    """How far to trust the model, on pairs of held-out prompts. A collective."""
    scores, pairs = pair_scores(engine, objective, batch_size)
    lengths = np.array([[len(p.chosen), len(p.rejected)] for p in pairs])
    spread = distribution(scores.ravel())
    gap = None
    if probe:
        right, wrong = probe_scores(engine, template, probe, batch_size)
        gap = right_minus_wrong(right, wrong, spread["std"])
    return {
        "accuracy": accuracy(scores),
        "right_minus_wrong": gap,
        "accuracy_by_gap": accuracy_by_gap(scores, [p.gap for p in pairs]),
        "length_score_correlation": correlation(lengths.ravel(), scores.ravel()),
        "scores": spread,
        "scores_preferred": distribution(scores[:, 0]),
        "scores_other": distribution(scores[:, 1]),
    }


def pair_scores(
    engine: Any, objective: PairObjective, batch_size: int
) -> tuple[np.ndarray, list[Pair]]:
    """Raw scores of all pairs on every rank. A collective.

    Args:
        batch_size: prompts per forward on each rank.

    Returns:
        `[pairs, 2]` float64 (preferred, other), and the pairs they belong to.
    """
    comparisons = objective.comparisons
    found = score_examples(
        engine,
        objective.lengths,
        [len(c.pairs) for c in comparisons],
        batch_size,
        lambda indices: torch.stack(objective.scores(engine, indices)[:2], dim=1).tolist(),
    )
    rows = [row for part in found for row in part]
    return np.array(rows, dtype=np.float64), [p for c in comparisons for p in c.records]


def accuracy(scores: np.ndarray) -> float:
    """Share of pairs in the right order; an equal score counts half.

    Args:
        scores: `[pairs, 2]`.
    """
    gap = scores[:, 0] - scores[:, 1]
    return float(np.mean((gap > 0) + 0.5 * (gap == 0)))


def accuracy_by_gap(scores: np.ndarray, gaps: Sequence[float]) -> dict[str, dict[str, float]]:
    """Accuracy of pairs whose mean ranks differ by up to 1, 2, 3, 4, …; with their number."""
    result = {}
    bins = np.ceil(np.asarray(gaps, dtype=np.float64)).astype(int)
    for top in sorted(set(bins.tolist())):
        chosen = bins == top
        result[f"{top - 1}-{top}"] = {
            "accuracy": round(accuracy(scores[chosen]), 4),
            "pairs": int(chosen.sum()),
        }
    return result


def distribution(values: np.ndarray) -> dict[str, float]:
    """Mean, deviation and quartiles of scores."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "p25": float(low),
        "median": float(middle),
        "p75": float(high),
    }


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson's correlation; None where one of them does not vary."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def right_minus_wrong(right: np.ndarray, wrong: np.ndarray, deviation: float) -> float:
    """Mean score of right answers minus that of wrong ones to the same prompts, in deviations.

    Pair accuracy alone does not show whether the model knows right from wrong: it can be high
    while PPO learns to please it with wrong answers. This probe does.

    Args:
        right, wrong: `[prompts]`, raw scores.
        deviation: of the scores of SFT samples.
    """
    return float((right.mean() - wrong.mean()) / max(deviation, 1e-9))
