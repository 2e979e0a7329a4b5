"""The paper's eight criteria (§4.3, Tables 2 and 3) and the overall score made of them."""

from collections.abc import Mapping

MAX_POINTS = 2.0
"""Each criterion is rated 0, 1 or 2: Table 3's figures fit 45 questions × 3 labelers × 0–2."""

RECONSTRUCTED_WEIGHTS: dict[str, float] = {
    "clarity": 3.0,
    "accuracy": 4.0,
    "completeness": 5.0,
    "safety": 2.0,
    "courtesy": 2.0,
    "comfortableness": 2.0,
    "conciseness": 1.0,
    "context": 3.0,
}
"""*Reconstructed*: Table 2's weights are lost with its figure. These reproduce the three overall
scores of Table 3 (86.3, 87.3, 95.5) to within 0.1; a test does it."""

CRITERIA: tuple[str, ...] = tuple(RECONSTRUCTED_WEIGHTS)


def overall_score(
    points: Mapping[str, float], weights: Mapping[str, float] = RECONSTRUCTED_WEIGHTS
) -> float:
    """Weighted mean of the criteria on a 0–100 scale (Table 3's last row).

    Args:
        points: criterion -> points in [0, MAX_POINTS]; must hold every criterion in `weights`.
        weights: criterion -> non-negative weight, in any unit.

    Raises:
        KeyError: a weighted criterion has no points.
    """
    total = sum(weights.values())
    return 100.0 * sum(w * points[name] / MAX_POINTS for name, w in weights.items()) / total
