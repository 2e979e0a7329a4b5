"""How far to trust a reward model: everything that its page and its result say of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.config.arguments import TextArguments
from common.data.records import Pair, Ranking
from common.data.template import Template
from common.evaluation.metrics.pairwise_accuracy.equation import correct
from common.reward.calibration import calibration
from common.reward.held_out import HeldOut, score_held_out
from common.reward.labelers import (
    SUPPORT,
    agreement_groups,
    agreement_name,
    leave_one_out,
    support_groups,
)
from common.reward.lengths import length_correlations, length_only
from common.reward.measures import ENOUGH, Estimate, by_group, distribution, share
from common.reward.probe import ProbeRow, probe_scores
from common.reward.rewrites import rewrite_shifts
from common.reward.training import PairObjective

MISTAKES = 10


@dataclass(frozen=True)
class Mistake:
    """A held-out pair in the wrong order."""

    pair: Pair
    scores: tuple[float, float]
    """Raw, of the preferred and of the other response."""
    wrong_by: float
    """Difference of the scores, in deviations."""
    agreement: float | None
    """Kendall's W of the prompt's labelers."""


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a reward model."""

    facts: dict[str, Any]
    """For `result.json`; what the page shows is under `diagnostics`."""
    held_out: HeldOut
    mistakes: list[Mistake]


def diagnose(
    engine: Any,
    training: PairObjective,
    objective: PairObjective,
    template: Template,
    text: TextArguments,
    *,
    rankings: Sequence[Ranking],
    probe: list[ProbeRow],
    batch_size: int,
    seed: int,
) -> Diagnosis:
    """How far to trust the model, on pairs of held-out prompts. A collective.

    Args:
        training, objective: the pairs that it was trained on, and the held-out ones.
        rankings: of the held-out prompts, as far as they are known.
        batch_size: prompts per forward on each rank.
        seed: draws halves of the held-out prompts.
    """
    held_out = score_held_out(engine, objective, rankings, batch_size)
    spread = distribution(held_out.responses.scores)
    gap = None
    if probe:
        right, wrong = probe_scores(engine, template, probe, batch_size)
        gap = right_minus_wrong(right, wrong, spread["std"])
    shifts = rewrite_shifts(engine, objective, template, text, batch_size, spread["std"])
    found = measure(held_out, training, seed) | {"rewrites": shifts}
    facts = {
        "accuracy": float(correct(held_out.scores).mean()),
        "length_only_accuracy": found["length_only"]["accuracy"]["value"],
        "right_minus_wrong": gap,
        "accuracy_by_gap": {
            name: {"accuracy": part["value"], "pairs": part["count"]}
            for name, part in found["by_gap"].items()
        },
        "length_score_correlation": found["length"]["all"],
        "scores": spread,
        "scores_preferred": distribution(held_out.scores[:, 0]),
        "scores_other": distribution(held_out.scores[:, 1]),
        "diagnostics": found,
    }
    return Diagnosis(facts, held_out, worst_mistakes(held_out, spread["std"]))


def measure(held_out: HeldOut, training: PairObjective, seed: int) -> dict[str, Any]:
    """All that needs the scores alone. For JSON; what is not known, or of too few, is None."""
    right, prompts = correct(held_out.scores), held_out.prompts
    votes = leave_one_out(held_out)
    known = ~np.isnan(votes)
    enough = len(held_out.rankings) >= 2 * ENOUGH  # each half must be enough
    return {
        "accuracy": share(right, prompts).facts(),
        "length_only": _plain(length_only(held_out, training.comparisons)),
        "ceiling": share(votes[known], prompts[known]).facts()
        | {"model": float(right[known].mean())}
        if known.any()
        else None,
        "by_gap": _plain(by_group(right, prompts, gap_groups(held_out.pairs), gap_name)),
        "by_agreement": _plain(
            by_group(right, prompts, agreement_groups(held_out.agreement()), agreement_name)
        )
        or None,
        "by_support": _plain(
            by_group(right, prompts, support_groups(held_out.pairs), SUPPORT.__getitem__)
        )
        if any(pair.support not in (None, 1.0) for pair in held_out.pairs)
        else None,
        "calibration": calibration(held_out.differences, prompts, seed) if enough else None,
        "length": length_correlations(held_out),
    }


def gap_groups(pairs: Sequence[Pair]) -> list[int]:
    """The group of each pair by how far its mean ranks differ: up to 1, 2, 3, 4, …"""
    # Means over three labelers are no whole numbers of float: 7/3 − 4/3 comes to a little over 1.
    return [math.ceil(round(pair.gap, 6)) for pair in pairs]


def gap_name(group: int) -> str:
    """What the gap is in a group."""
    return f"{group - 1}-{group}"


def worst_mistakes(held_out: HeldOut, deviation: float, count: int = MISTAKES) -> list[Mistake]:
    """The pairs most clearly in the wrong order, worst first; at most one of each prompt."""
    order = np.argsort(held_out.differences, kind="stable")
    agreement = held_out.agreement()
    found: dict[int, Mistake] = {}
    for i in order.tolist():
        difference = float(held_out.differences[i])
        if difference >= 0 or len(found) == count:
            break
        mistake = Mistake(
            held_out.pairs[i],
            (float(held_out.scores[i, 0]), float(held_out.scores[i, 1])),
            -difference / max(deviation, 1e-9),
            agreement[i],
        )
        found.setdefault(int(held_out.prompts[i]), mistake)
    return list(found.values())


def right_minus_wrong(right: np.ndarray, wrong: np.ndarray, deviation: float) -> float:
    """Mean score of right answers minus that of wrong ones to the same prompts, in deviations.

    Pair accuracy alone does not show whether the model knows right from wrong: it can be high
    while PPO learns to please it with wrong answers. This probe does.

    Args:
        right, wrong: `[prompts]`, raw scores.
        deviation: of the scores of SFT samples.
    """
    return float((right.mean() - wrong.mean()) / max(deviation, 1e-9))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.facts() if isinstance(v, Estimate) else v for k, v in values.items()}
