"""Checks of one stage, and the limits beyond which it is not healthy.

Reward and loss curves look alike in good runs and in collapsed ones. What tells them apart is
checked in `common.evaluation.checks`, one module a stage. The limits come from the quickstart as it
is shipped and from the three broken copies of it that `launch/broken.sh` makes: "measured" beside
a limit gives the healthy run's value, then that of the broken run it has to tell apart. Where other
work has such a limit, it is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common.evaluation.formatting import number
from common.evaluation.run_files import Metrics
from common.evaluation.summary import compared

Part = Literal["sft", "reward", "rlhf"]

GENERAL = "general"
"""The split that watches for loss of general ability."""
MIN_EOS_RATE = 0.95
"""Share of the answers that end by themselves. Measured: 1.00; 0 (PPO)."""
MAX_REPEATS = 0.2
"""Share of repeated word 4-grams. Measured: 0.01; 0.88 (PPO)."""
MAX_KL_PER_SEQUENCE = 6.0
"""Nats. Further from the reference than that, the reward model judges text it never saw."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at in one stage."""

    stage: Part
    name: str
    value: str
    """With its unit; empty where it could not be measured."""
    healthy: bool | None
    """None: it could not be measured; `why` says why not."""
    why: str
    """One sentence: what the value means."""
    try_: str
    """One sentence: what to try where it is not healthy; it names settings."""
    grave: bool = False
    """So ill that it explains a bad outcome by itself."""


def unmeasured(stage: Part, name: str, why: str) -> Check:
    """What could not be looked at, and why not."""
    return Check(stage, name, "", None, why, "")


def alarms(stage: Part, metrics: Metrics | None) -> Check:
    """What the stage's guard found while it ran."""
    name = "alarms"
    if metrics is None or not metrics.series:
        return unmeasured(stage, name, "The stage recorded no metrics.")
    events = metrics.events
    if not events:
        why = "Its guard found nothing odd while it ran."
        return Check(stage, name, "0 alarms", True, why, "")
    return Check(
        stage,
        name,
        "1 alarm" if len(events) == 1 else f"{len(events)} alarms",
        False,
        f"Its guard found something while it ran; the first: {events[0]}.",
        "Look at the curves around that step; on_gradient, on_kl and their like say what is done.",
    )


def ends(stage: Part, rate: float, where: str, limit: float, try_: str) -> Check:
    """The share of answers that end by themselves."""
    healthy = rate >= limit
    return Check(
        stage,
        "answers that end",
        f"{rate:.1%} of the {where}",
        healthy,
        "They end by themselves."
        if healthy
        else f"Under {limit:.0%}: the others are cut off at the length limit.",
        try_,
        grave=rate < limit / 2,
    )


def repeats(stage: Literal["sft", "rlhf"], evaluation: dict[str, Any], try_: str) -> Check:
    """Whether its answers say the same again and again."""
    name, value = "repeated text", over_splits(evaluation, stage, "repeats")
    if value is None:
        return unmeasured(stage, name, "The evaluation has no answers of it.")
    healthy = value <= MAX_REPEATS
    return Check(
        stage,
        name,
        f"{value:.1%} of the word 4-grams in an answer stood in it before",
        healthy,
        "The answers do not run in circles." if healthy else "The answers run in circles.",
        try_,
    )


def in_domain(evaluation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The splits by which a run is judged: sampled, else greedy, and without general ability."""
    return {name: split for name, split in compared(evaluation)[1].items() if name != GENERAL}


def over_splits(evaluation: dict[str, Any], model: str, key: str) -> float | None:
    """Mean of a model's number over the splits in the domain, each weighed by its prompts."""
    values, weights = [], []
    for split in in_domain(evaluation).values():
        value = (split[model] or {}).get(key)
        if value is not None:
            values.append(value)
            weights.append(split["prompts"])
    return float(np.average(values, weights=weights)) if values else None


def points(metrics: Metrics | None, name: str) -> np.ndarray:
    """The finite values of a metric in their order, `[points]`; none where it was not recorded."""
    series = None if metrics is None else metrics.series.get(name)
    return np.empty(0) if series is None else series.values[np.isfinite(series.values)]


def percents(interval: Sequence[float] | None, sign: bool = False) -> str:
    """` (95% interval 87.4% to 90.5%)`, or nothing."""
    if interval is None:
        return ""
    return f" (95% interval {' to '.join(f'{x:+.1%}' if sign else f'{x:.1%}' for x in interval)})"


def interval_of(difference: dict[str, Any], unit: str, digits: int) -> str:
    """`+3.1 points (95% interval +1.0 to +5.2)`."""
    low, high = (number(x, digits, sign=True) for x in difference["ci95"])
    mean = number(difference["mean"], digits, sign=True)
    return f"{mean} {unit} (95% interval {low} to {high})"
