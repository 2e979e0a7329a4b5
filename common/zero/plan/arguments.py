"""Settings of a plan: whether to make one, and for which machines."""

from dataclasses import dataclass
from typing import ClassVar

from common.config.arguments import check_range, option

STAGES = ("sft", "sample", "reward", "rlhf", "dpo", "evaluation")
"""Those that can be planned: the ones that have ranks."""


@dataclass
class PlanArguments:
    """A plan in place of a run, from the model's config alone."""

    HARMLESS: ClassVar = (
        *("dry_run", "plan_nodes", "plan_gpus", "plan_gpu"),
        *("plan_model", "plan_examples"),
    )

    dry_run: bool = option(
        False, "print what the stage would take (memory, steps, time), and begin nothing"
    )
    plan_nodes: int = option(0, "plan for this many nodes; 0: those of this launch")
    plan_gpus: int = option(0, "plan for this many ranks a node; 0: those of this launch")
    plan_gpu: str = option(
        "", "plan for this card, e.g. H100-80G (common/zero/plan/cards.py); by default this machine"
    )
    plan_model: str = option(
        "", "plan with this model's shape where the stage's own models do not exist yet"
    )
    plan_examples: int = option(
        0, "plan for this many examples or prompts; 0: as many as the data files have lines"
    )

    def __post_init__(self) -> None:
        check_range(self, 0, "plan_nodes", "plan_gpus", "plan_examples")
