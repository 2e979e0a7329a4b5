"""What the judges' commands are told."""

import math
from dataclasses import dataclass
from typing import Literal

from common.config.arguments import check_range, option
from common.errors import UserError, nearest
from common.evaluation.criteria import CRITERIA, RECONSTRUCTED_WEIGHTS


@dataclass
class TableArguments:
    """The run, and how its criteria are weighed."""

    run: str = option("runs/default", "folder of a run whose evaluation has been done")
    seed: int = option(0, "the prompts that are judged and the bootstrap derive from it")
    weights: list[str] = option(
        [],
        "of the overall score, as accuracy=2 completeness=1; what is not named weighs nothing; by "
        "default the reconstructed ones: "
        + " ".join(f"{name}={weight:g}" for name, weight in RECONSTRUCTED_WEIGHTS.items()),
    )

    def __post_init__(self) -> None:
        if not self.run:
            raise UserError("run is empty, but must name a folder")
        weights_of(self.weights)


@dataclass
class AnswersArguments:
    """Which answers of the evaluation are judged: one of each model to each prompt."""

    decoding: Literal["sample", "greedy"] = option(
        "sample", "the first sampled answer, or the greedy one, which best-of-n does not have"
    )
    limit: int = option(45, "prompts of each split, drawn by seed (paper: 45); 0 takes all")
    splits: list[str] = option([], "splits of the evaluation; by default all")
    models: list[str] = option([], "models of the evaluation, as sft rlhf; by default all")

    def __post_init__(self) -> None:
        check_range(self, 0, "limit")


def weights_of(given: list[str]) -> tuple[str, dict[str, float]]:
    """(what the weights are called, criterion -> weight): `reconstructed` where none is given.

    Raises:
        UserError: no `criterion=number`, an unknown criterion, one that is named twice, a
            negative weight, or none above 0.
    """
    if not given:
        return "reconstructed", dict(RECONSTRUCTED_WEIGHTS)
    weights = dict.fromkeys(CRITERIA, 0.0)
    named = set()
    for text in given:
        name, _, value = text.partition("=")
        if name not in weights:
            raise UserError(f"weights: there is no criterion '{name}'{nearest(name, CRITERIA)}")
        if name in named:
            raise UserError(f"weights names {name} twice")
        named.add(name)
        try:
            weights[name] = float(value)
        except ValueError:
            weights[name] = math.nan
        if not 0 <= weights[name] < math.inf:
            raise UserError(f"weights: {text} must be {name}=NUMBER, at least 0")
    if not any(weights.values()):
        raise UserError("weights: at least one must be above 0")
    return "given", weights
