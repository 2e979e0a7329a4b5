"""*Simulated* labelers: the rubric plus noise, in place of the people who rank responses (§4.1).

They stand in for annotators so that the pipeline can run unattended. Nothing they produce is human
judgement, and wherever their rankings appear they are called *simulated*.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from common.data.ad_moderation.rubric import score
from common.evaluation.criteria import overall_score


def _noise(seed: int, prompt: str, labeler: int, response: str) -> random.Random:
    """The noise stream of one simulated labeler reading one response to one prompt."""
    key = json.dumps([seed, prompt, labeler, response], ensure_ascii=True)
    return random.Random(int.from_bytes(hashlib.sha256(key.encode()).digest(), "big"))


def rank(
    responses: Sequence[str],
    facts: Mapping[str, Any],
    *,
    seed: int,
    labelers: int = 3,
    noise: float = 0.12,
) -> list[list[int]]:
    """Rankings of the responses to one prompt by *simulated* labelers.

    A simulated labeler sees the rubric's points for the eight criteria with independent Gaussian
    noise added to each, and orders the responses by the overall score that results.

    Args:
        responses: the texts to rank; equal texts are ranked in the order given.
        facts: ground truth of the prompt.
        seed: rankings are a function of (seed, facts, responses), whatever was ranked before.
        labelers: number of simulated labelers.
        noise: standard deviation in points of a criterion, which ranges from 0 to 2.

    Returns:
        One order per labeler, best first: indices into `responses`.
    """
    prompt = json.dumps(facts, sort_keys=True)
    points = [score(response, facts) for response in responses]
    orders = []
    for labeler in range(labelers):
        totals = []
        for response, seen in zip(responses, points, strict=True):
            stream = _noise(seed, prompt, labeler, response)
            totals.append(
                overall_score(
                    {name: value + stream.gauss(0.0, noise) for name, value in seen.items()}
                )
            )
        orders.append(sorted(range(len(responses)), key=lambda i, t=totals: (-t[i], i)))
    return orders
