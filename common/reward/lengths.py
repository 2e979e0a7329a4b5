"""What a reward model's accuracy owes to length: longer answers are often preferred, and scored."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.data.encoding import Comparison
from common.evaluation.metrics.pairwise_accuracy.equation import correct
from common.reward.held_out import HeldOut
from common.reward.measures import centred, correlation, mean, partial_correlation, share


def pair_lengths(comparisons: Sequence[Comparison]) -> np.ndarray:
    """Characters of the preferred and of the other response, `[pairs, 2]` float64."""
    pairs = [p for c in comparisons for p in c.records]
    return np.array([(len(p.chosen), len(p.rejected)) for p in pairs], dtype=np.float64)


def longer_wins(training: np.ndarray) -> bool:
    """Whether the longer response is preferred more often than not.

    Of the two rules that length alone allows, the one that orders more of these pairs rightly.

    Args:
        training: `[pairs, 2]` lengths.
    """
    return bool(correct(training).mean() >= 0.5)


def length_only(held_out: HeldOut, training: Sequence[Comparison]) -> dict[str, Any]:
    """Accuracy of preferring by length alone, as the training pairs have it, beside the model's.

    Returns:
        `prefers`; `accuracy` on the held-out pairs, equal lengths counting half; and `model_minus`,
        the model's accuracy less that, paired by pair (None with few prompts).
    """
    longer = longer_wins(pair_lengths(training))
    lengths = np.array([(len(p.chosen), len(p.rejected)) for p in held_out.pairs], dtype=np.float64)
    right = correct(lengths if longer else -lengths)
    return {
        "prefers": "longer" if longer else "shorter",
        "accuracy": share(right, held_out.prompts),
        "model_minus": mean(correct(held_out.scores) - right, held_out.prompts),
    }


def length_correlations(held_out: HeldOut) -> dict[str, Any]:
    """Pearson's correlation of score and length: of all responses, within prompts, given the rank.

    Within prompts, each prompt's mean is taken off first. Given the rank, what a linear fit on the
    response's standing explains is taken off, too: what is left of the score goes with length for
    no reason that the labelers gave.
    """
    r = held_out.responses
    score, length, standing = (
        centred(x.astype(np.float64), r.prompts) for x in (r.scores, r.lengths, r.standing)
    )
    return {
        "all": correlation(r.scores, r.lengths),
        "within_prompts": correlation(score, length),
        "given_rank": partial_correlation(score, length, standing),
        "rank_known_from": "labelers' ranks" if held_out.ranked else "who wins its pairs",
    }
