"""Which pairs a score puts in the preferred order."""

import numpy as np


def correct(scores: np.ndarray) -> np.ndarray:
    """1 for each pair in the right order, 0 for one in the wrong one, a half at equal scores.

    Over all pairs of a positive and a negative, its mean is the area under the ROC curve.

    Args:
        scores: `[pairs, 2]` (preferred, other).

    Returns:
        `[pairs]` float64.
    """
    gap = scores[:, 0] - scores[:, 1]
    return (gap > 0) + 0.5 * (gap == 0)
