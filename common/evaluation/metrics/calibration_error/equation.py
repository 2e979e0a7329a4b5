"""Confidence against accuracy, bin by bin."""

import numpy as np

BINS = 10


def reliability(differences: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """Accuracy at each level of confidence σ(|Δ|), which runs from a half to 1.

    Args:
        differences: `[pairs]`, Δ = score of the preferred minus score of the other response.
        bins: of equal width; empty ones are left out.

    Returns:
        for each bin `low`, `high`, the mean `confidence`, `accuracy` (equal scores count half) and
        `pairs`.
    """
    confidence = sigmoid(np.abs(differences))
    right = (differences > 0) + 0.5 * (differences == 0)
    number = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    return [
        {
            "low": 0.5 + i / (2 * bins),
            "high": 0.5 + (i + 1) / (2 * bins),
            "confidence": float(confidence[number == i].mean()),
            "accuracy": float(right[number == i].mean()),
            "pairs": int((number == i).sum()),
        }
        for i in range(bins)
        if (number == i).any()
    ]


def calibration_error(differences: np.ndarray, bins: int = BINS) -> float:
    """ECE = Σ_bins share of the pairs · |accuracy − confidence| (Guo et al. 2017, eq. 5).

    https://arxiv.org/abs/1706.04599; arguments as of `reliability`.
    """
    parts = reliability(differences, bins)
    gaps = [b["pairs"] * abs(b["accuracy"] - b["confidence"]) for b in parts]
    return sum(gaps) / len(differences)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−x), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))
