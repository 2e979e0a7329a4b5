"""Whether σ(r_a − r_b) is the probability that labelers prefer a, as the logistic loss has it."""

from typing import Any

import numpy as np

from common.evaluation.metrics.calibration_error.equation import (
    calibration_error,
    reliability,
    sigmoid,
)
from common.training.seeding import numpy_stream

STEEPEST = 2.0**20
"""Limit of the fitted factor, in units of 1 / the mean difference."""


def logistic_mean(differences: np.ndarray) -> float:
    """Mean of −log σ(Δ), in nats a pair; ln 2 for a model that knows nothing."""
    return float(np.logaddexp(0.0, -differences).mean())


def fitted_factor(differences: np.ndarray) -> float:
    """The a ≥ 0 with the least mean of −log σ(a·Δ): one over the temperature (Guo et al., §4.2).

    The mean is convex in a: its slope −mean(Δ·σ(−a·Δ)) is 0 there, which bisection finds. Pairs
    that are all in order fit no finite one: then it is where the mean is 0 to rounding.
    """

    def slope(a: float) -> float:
        return -float((differences * sigmoid(-a * differences)).mean())

    size = float(np.abs(differences).mean())
    if size == 0.0 or slope(0.0) >= 0.0:  # the order is no better than chance
        return 0.0
    low, high = 0.0, STEEPEST / size
    if slope(high) < 0.0:
        return high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0.0 else (low, middle)
    return high


def calibration(differences: np.ndarray, prompts: np.ndarray, seed: int) -> dict[str, Any]:
    """Error as it is, and on half of the prompts after one factor is fitted to the other half.

    Args:
        differences, prompts: `[pairs]`.
        seed: draws the halves.
    """
    known = np.unique(prompts)
    order = numpy_stream(seed, "calibration").permutation(known)
    fits = np.isin(prompts, order[: len(known) // 2])
    factor = fitted_factor(differences[fits])
    scaled = factor * differences[~fits]
    return {
        "error": calibration_error(differences),
        "nats": logistic_mean(differences),
        "factor": factor,
        "error_before_on_half": calibration_error(differences[~fits]),
        "error_after_on_half": calibration_error(scaled),
        "nats_after_on_half": logistic_mean(scaled),
        "curve": reliability(differences),
        "curve_after": reliability(scaled),
    }
