"""Scores of single responses: by the embedded domain's rubric where its ground truth is known."""

from collections.abc import Mapping
from typing import Any

from common.data.ad_moderation.rubric import DOMAINS, score
from common.evaluation.criteria import overall_score


def judge(response: str, facts: Mapping[str, Any] | None) -> tuple[dict[str, float], float] | None:
    """Points on the eight criteria (0–2) and the overall score (0–100).

    Args:
        facts: ground truth of the embedded domain, stored with its prompts; None, or whatever
            else a user's own file has under that name, for prompts that no rubric knows.

    Returns:
        None where there is no ground truth.
    """
    if facts is None or facts.get("domain") not in DOMAINS:
        return None
    points = score(response, facts)
    return points, overall_score(points)
