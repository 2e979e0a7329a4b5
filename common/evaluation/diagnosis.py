"""Is a run better than where it began, and if not, whose fault is it: SFT, reward model or PPO?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from common.evaluation.run_files import Metrics

Part = Literal["sft", "reward", "rlhf"]


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


@dataclass(frozen=True)
class Diagnosis:
    """What a run came to, and why."""

    verdict: str
    """One sentence: better or not, by how much, with its interval."""
    culprit: Literal["", "sft", "reward", "rlhf"]
    """The earliest stage whose ill health explains the outcome; empty: nobody is to blame."""
    because: str
    """One or two sentences: what speaks for that."""
    checks: list[Check]
    """In the order of the stages: SFT, reward model, PPO."""


def diagnose(summary: dict[str, Any], metrics: Mapping[str, Metrics]) -> Diagnosis:
    """Judges a run by what its files say; reads none itself.

    Args:
        summary: of `build_summary`.
        metrics: stage -> what `read_metrics` gave, with the events of its guard.
    """
    return Diagnosis("Not judged yet.", "", "", [])
