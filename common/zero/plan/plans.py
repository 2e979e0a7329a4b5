"""What a plan says, whatever stage it is of."""

from dataclasses import dataclass, field

from common.zero.plan.rates import Work
from common.zero.plan.settings import Job, examples_of
from common.zero.plan.shapes import Counts, Variant, kv_elements, passes, read_config
from common.zero.plan.states import (
    BUFFERS,
    CACHE,
    FP32,
    added,
    frozen_memory,
    gathered,
    size_of,
)
from common.zero.plan.trace import ACTIVATIONS, LOGITS, Kinds

FREE_SHARE = 0.8
"""See `common.hybrid_engine.phases.FREE_SHARE`."""
LIBRARIES = "libraries"
LIBRARY_BYTES = 36 * 2**20
"""What a process takes that has no tensors to speak of: tokenizer, data, kernels' own buffers. As
measured with a model of some thousand weights by `common.benchmark.plan`."""


@dataclass
class Plan:
    """What a stage will take on each rank, and for how long."""

    stage: str
    job: Job
    models: dict[str, Counts]
    phases: dict[str, Kinds]
    """Bytes on the card (on a CPU: in the process) at the worst moment of each phase, by kind."""
    host: Kinds = field(default_factory=dict)
    """Bytes in the host's memory that are offloaded there."""
    host_loading: int = 0
    """Bytes in the host's memory while this rank reads its models."""
    unit: Work = field(default_factory=Work)
    """Of one unit of work."""
    unit_name: str = "optimizer step"
    units: int | None = None
    """None where the number of examples is not known."""
    how_many: str = ""
    """How units are counted."""
    assumptions: list[str] = field(default_factory=list)

    @property
    def totals(self) -> dict[str, int]:
        """Bytes by phase."""
        return {name: size_of(kinds) for name, kinds in self.phases.items()}

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return max(self.totals.values())

    @property
    def worst(self) -> str:
        """The phase of the worst moment."""
        return max(self.totals, key=self.totals.__getitem__)

    @property
    def seconds(self) -> float | None:
        """Of all of the work at the assumed rates, without loading, evaluation and saving."""
        if self.units is None:
            return None
        return self.units * self.unit.seconds(self.job.machines)

    @property
    def fits(self) -> bool:
        """Whether it fits into a card's memory."""
        return self.peak <= self.job.machines.card.memory


def generating_weights(job: Job, counts: Counts) -> Kinds:
    """A model that only answers, and under ZeRO-3 what is gathered of it for that."""
    spread = job.spread(whole=job.fits_whole(counts.weights))
    held = frozen_memory(counts, spread)
    layers = gathered(counts.weights, spread)
    if not layers:
        return held
    together = {BUFFERS: counts.weights * spread.width}
    free = job.machines.card.memory - size_of(held)
    at_once = job.s.gather == "all" or (
        job.s.gather == "auto" and size_of(together) <= FREE_SHARE * max(free, 0)
    )
    return added(held, together if at_once else layers)


def generation_memory(job: Job, variant: Variant) -> Kinds:
    """The decoding loop beside the weights (`common.hybrid_engine.decoding`)."""
    s, config = job.s, read_config(variant.source)
    slots, width = s.generation_batch_size, job.dtype.itemsize
    refilled = True
    if "rollout_batch_size" in job.values:
        rows = s.rollout_batch_size // job.machines.ranks
        slots, refilled = min(slots, rows), rows > slots
    held = kv_elements(config) * width
    distinct = slots if job.values.get("responses", 1) == 1 else -(-slots // s.responses)
    encoded = distinct * s.max_prompt_tokens * held
    cache = slots * job.width * held
    prompt = passes(variant, distinct, s.max_prompt_tokens).forward
    vocabulary = config.vocab_size
    # Logits, in fp32, their softmax, and its sums in fp64.
    drawing = slots * vocabulary * (width + (FP32 if width < FP32 else 0) + FP32 + 8)
    # The first prompts' layers go one by one as the cache's come; later ones are beside it.
    reading = cache + encoded if refilled else encoded
    while_reading = {CACHE: reading, ACTIVATIONS: prompt.get(ACTIVATIONS, 0)}
    while_drawing = {CACHE: cache, LOGITS: drawing}
    return max((while_reading, while_drawing), key=size_of)


def with_steps(plan: Plan) -> Plan:
    """Optimizer steps of supervised training (see `common.training.supervised.total_steps`)."""
    s, examples = plan.job.s, examples_of(plan.job)
    plan.how_many = f"{s.epochs:g} × examples / {s.batch_size}"
    if examples:
        plan.units = max(1, round(s.epochs * -(-examples // s.batch_size)))
        plan.how_many = f"{s.epochs:g} × {examples} examples / {s.batch_size}"
    return plan


def with_prompts(plan: Plan) -> Plan:
    """A stage whose work is so much for each prompt."""
    plan.unit_name, plan.units = "prompt", examples_of(plan.job) or None
    plan.how_many = "as many as the data has"
    return plan


def made(job: Job, name: str) -> str:
    """Where an earlier stage of the run leaves its model."""
    return f"{job.s.run}/models/{name}"
