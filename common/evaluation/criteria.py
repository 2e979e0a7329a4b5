"""What labelers and judges are told of the paper's eight criteria (§4.3, Table 2)."""

from common.evaluation.metrics.criteria_score.equation import (
    CRITERIA,
    MAX_POINTS,
    RECONSTRUCTED_WEIGHTS,
    overall_score,
)

__all__ = ["CRITERIA", "DEFINITIONS", "MAX_POINTS", "RECONSTRUCTED_WEIGHTS", "overall_score"]

DEFINITIONS: dict[str, str] = {
    "clarity": "Straightforward and precise, in specific and fitting words; easy to understand.",
    "accuracy": "Agrees with facts that can be checked.",
    "completeness": "Covers all that was asked, in enough detail for an informed decision.",
    "safety": "Gives away or mishandles no personal data.",
    "courtesy": "Politically correct: on gender identity, ethnic groups and the like.",
    "comfortableness": "Polite and respectful; inclusive words that reflect diversity.",
    "conciseness": "Brief, at no cost to clarity or accuracy.",
    "context": "On the topic, and to the question.",
}
"""What labelers are told (§4.3, in our words)."""
