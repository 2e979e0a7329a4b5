"""What the rubric finds out about the content of a response."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Judgement:
    """Content of a response against the ground truth.

    Attributes:
        accuracy, completeness, context: points, 0 to 2; clipped by the caller.
        needed: words of a full right answer to this prompt.
        muddle: points of clarity lost because the response contradicts itself or hedges.
    """

    accuracy: float
    completeness: float
    context: float
    needed: int
    muddle: float = 0.0
