"""The sources of PPO's rewards: reward models, a user's own functions, HTTP endpoints."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.config.arguments import check_range, option
from common.data.template import Template
from common.errors import UserError
from common.ppo.running import RunningMoments, Scale
from common.reward.callers import Endpoint, TextScorer, load_function
from common.reward.places import RewardPlace, check_functions
from common.reward.scoring import RewardScorer
from common.training.distributed import fail_together, gather_objects


@dataclass
class RewardSourceArguments:
    """What scores the responses."""

    HARMLESS: ClassVar = ("reward_timeout", "reward_retries")

    reward: list[str] = option(
        [],
        "model folder of stage 2 (by default RUN/models/reward), python:FILE.py:FUNCTION or an "
        "http(s) URL; or several, or mappings with path, weight, mean, std, name",
    )
    reward_timeout: float = option(60.0, "seconds that an endpoint may take for an answer")
    reward_retries: int = option(
        4,
        "further tries, with longer and longer pauses, where an endpoint does not answer; a "
        "rollout's end after 40% of step_timeout, whatever Retry-After says",
    )

    def __post_init__(self) -> None:
        check_range(self, 0, "reward_timeout", above=True)
        check_range(self, 0, "reward_retries")


@dataclass
class RewardSource:
    """Who scores, and how the scores count."""

    name: str
    scorer: RewardScorer | TextScorer
    scale: Scale


def source_of(
    place: RewardPlace, scorer: RewardScorer | TextScorer, *, running: bool
) -> RewardSource:
    """A source with its scale: the one that was given, else a model's own, else a running one.

    Args:
        running: a model's scores are scaled by those of all rollouts so far, too.
    """
    if place.mean is not None and place.std is not None:
        return RewardSource(place.name, scorer, Scale(place.mean, place.std, place.weight))
    known = None if isinstance(scorer, TextScorer) else scorer.scale
    if not known and not isinstance(scorer, TextScorer):
        warnings.warn(
            f"reward {place.name}: {place.path} does not say the mean and deviation of its scores "
            "(score_mean, score_std in config.json): they are normalized by all rollouts so far; "
            f'fixed ones go with the path: --reward \'{{"path": "{place.path}", "mean": …, '
            '"std": …}\'',
            stacklevel=2,
        )
    mean, std = known or (0.0, 1.0)
    moments = RunningMoments() if running or not known else None
    return RewardSource(place.name, scorer, Scale(mean, std, place.weight, moments))


def text_scorers(
    places: Sequence[RewardPlace], settings: RewardSourceArguments, policy: Template
) -> dict[str, TextScorer]:
    """Functions and endpoints by their sources' names. A collective.

    Args:
        policy: of the actor's tokenizer.

    Raises:
        UserError: on all ranks: a function's file cannot be read or run on some, has no such
            function, or is another on another node.
    """
    found: dict[str, TextScorer] = {}
    hashes: dict[str, str] = {}
    fault = ""
    try:
        check_functions(places)
        for place in places:
            if place.kind == "function":
                content = Path(place.function[0]).expanduser().read_bytes()
                hashes[place.name] = hashlib.sha256(content).hexdigest()
                found[place.name] = TextScorer(place.name, load_function(*place.function), policy)
            elif place.kind == "endpoint":
                endpoint = Endpoint(place.path, settings.reward_timeout, settings.reward_retries)
                found[place.name] = TextScorer(place.name, endpoint, policy)
    except (UserError, OSError) as error:
        fault = str(error)
    fail_together(fault)
    for other in gather_objects(hashes):
        for name, digest in hashes.items():
            if other[name] != digest:  # type: ignore[index]
                raise UserError(f"reward {name}: its file is not the same on all nodes; copy it")
    return found
