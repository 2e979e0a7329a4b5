"""Which single setting would make a stage fit, found by planning it with each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from common.zero.plan.plans import Plan
from common.zero.plan.settings import Job
from common.zero.plan.stages import plan_stage


@dataclass(frozen=True)
class Lever:
    """A setting, and what it would bring."""

    option: str
    peak: int
    """Bytes at the worst moment."""
    fits: bool


def levers(stage: str, job: Job) -> Iterator[dict[str, Any]]:
    """Changes of one setting each that can lower what a stage takes."""
    values = job.values
    if "zero" in values:
        stages = ("2", "3") if job.machines.ranks > 1 else ()
        yield from ({"zero": z} for z in stages if int(z) > job.zero.stage)
        if job.machines.card.is_gpu:
            if "lora_rank" in values and values["offload_optimizer"] == "none":
                yield {"offload_optimizer": "cpu"}
            if values["offload_parameters"] == "none":
                yield {"offload_parameters": "cpu"}
        if "lora_rank" in values and not values["gradient_checkpointing"]:
            yield {"gradient_checkpointing": True}
        if values.get("lora_rank") == 0:
            yield {"lora_rank": 64}
    if stage == "rlhf":
        if values["lora_rank"] and not values["one_base"]:
            yield {"one_base": True}
        if not values["offload_idle"] and job.machines.card.is_gpu:
            yield {"offload_idle": True}
        if values["reuse_scoring"]:
            yield {"reuse_scoring": False}
    for name in (
        "micro_batch_size",
        "generation_batch_size",
        "score_batch_size",
        "eval_batch_size",
    ):
        if values.get(name, 1) > 1:
            yield {name: values[name] // 2}


def advise(plan: Plan) -> list[Lever]:
    """What each lever would bring, those that make it fit first, then by what they save."""
    found = []
    for change in levers(plan.stage, plan.job):
        ((name, value),) = change.items()
        try:
            other = plan_stage(plan.stage, plan.job.with_values(**change))
        except UserError:  # one that does not go with the other settings
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        found.append(Lever(f"--{name} {text}", other.peak, other.fits))
    return sorted(found, key=lambda lever: (not lever.fits, lever.peak))
