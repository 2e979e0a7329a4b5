"""The paper's Table 3: percent of the most points possible, by its own labelers and questions."""

from collections.abc import Mapping

from common.evaluation.criteria import MAX_POINTS, RECONSTRUCTED_WEIGHTS, overall_score

SOURCE = "the paper's Table 3: its labelers, its questions, its models; nothing of this run"

TABLE_3: dict[str, dict[str, float]] = {
    "Llama2 SFT": {
        "clarity": 95.9,
        "accuracy": 77.4,
        "completeness": 64.8,
        "safety": 96.6,
        "courtesy": 100.0,
        "comfortableness": 96.6,
        "conciseness": 95.1,
        "context": 98.8,
        "overall": 86.3,
    },
    "ICE-Instruct": {
        "clarity": 88.5,
        "accuracy": 84.44,
        "completeness": 71.11,
        "safety": 100.0,
        "courtesy": 95.9,
        "comfortableness": 98.1,
        "conciseness": 93.33,
        "context": 94.0,
        "overall": 87.3,
    },
    "ICE-GRT": {
        "clarity": 98.1,
        "accuracy": 97.0,
        "completeness": 92.9,
        "safety": 92.2,
        "courtesy": 100.0,
        "comfortableness": 92.22,
        "conciseness": 91.8,
        "context": 98.1,
        "overall": 95.5,
    },
}
"""Model -> criterion or `overall` -> percent."""


def table_3(weights: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The table as published; with other than the reconstructed weights, its overall by those."""
    if dict(weights) == RECONSTRUCTED_WEIGHTS:
        return TABLE_3
    found = {}
    for model, row in TABLE_3.items():
        points = {criterion: row[criterion] * MAX_POINTS / 100.0 for criterion in weights}
        found[model] = row | {"overall": overall_score(points, weights)}
    return found
