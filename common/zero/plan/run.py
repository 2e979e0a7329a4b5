"""The planner's two entries: in place of a stage, and at its end."""

from collections.abc import Sequence
from typing import Any

from common.config.parsing import resolved_settings
from common.zero.plan.arguments import PlanArguments
from common.zero.plan.cards import machines
from common.zero.plan.plans import Plan
from common.zero.plan.report import describe
from common.zero.plan.settings import Job
from common.zero.plan.stages import plan_stage


def plan_of(stage: str, groups: Sequence[Any], settings: PlanArguments) -> Plan:
    """The plan of a stage with these settings, for the machines asked for or at hand.

    Raises:
        UserError: a card of which nothing is known, no config of a model, batches that do not come
            out even.
    """
    where = machines(settings.plan_gpu, settings.plan_nodes, settings.plan_gpus)
    return plan_stage(stage, Job(resolved_settings(*groups, settings), where))


def dry_run(stage: str, groups: Sequence[Any], settings: PlanArguments) -> str:
    """The plan in words; arguments and errors as of `plan_of`."""
    return describe(plan_of(stage, groups, settings))
