"""When checkpoints are written, and how a user does without them."""

import os
from dataclasses import dataclass
from typing import ClassVar

from common.config.arguments import check_range, option


@dataclass
class CheckpointArguments:
    """When checkpoints are written, and how many are kept."""

    HARMLESS: ClassVar = (
        *("checkpoint_minutes", "checkpoint_steps", "checkpoint_epochs", "checkpoint_keep"),
    )

    checkpoint_minutes: float = option(
        10.0,
        "minutes between checkpoints; also after an evaluation that is the best so far, but never "
        "for over 5 % of the time; 0: neither",
    )
    checkpoint_steps: int = option(
        0,
        "optimizer steps (rollouts in PPO, batches in sampling) between checkpoints; 0: none",
    )
    checkpoint_epochs: bool = option(
        True, "also save at the end of each pass over the data, under the same limit"
    )
    checkpoint_keep: int = option(2, "newest checkpoints that are kept, beside the best one")

    def __post_init__(self) -> None:
        check_range(self, 0, "checkpoint_minutes", "checkpoint_steps")
        check_range(self, 1, "checkpoint_keep")


def how_to_start_over(stage: str = "STAGE") -> str:
    """What a user gives to start a stage over, in a pipeline or alone."""
    if "RLHF_LAUNCHER" in os.environ:
        return f"give the pipeline --restart {stage} (its --fresh deletes all stages)"
    return "give --fresh true"
