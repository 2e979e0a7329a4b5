"""Plans of the five stages that have ranks: which models are in memory when, in which passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.reward.places import parse_rewards
from common.zero.plan.rates import Work, decoding, scoring, training
from common.zero.plan.settings import Job, examples_of
from common.zero.plan.shapes import Counts, Variant, count, kv_elements, passes, read_config
from common.zero.plan.states import (
    BUFFERS,
    CACHE,
    FP32,
    OPTIMIZER,
    WEIGHTS,
    EngineMemory,
    added,
    engine_memory,
    frozen_memory,
    gathered,
    loaded,
    size_of,
)
from common.zero.plan.trace import ACTIVATIONS, LOGITS, Kinds

RANKED_RESPONSES = 4
"""Of a prompt in reward training: the two best and the two worst (paper §3.2)."""


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
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return max(map(size_of, self.phases.values()))

    @property
    def worst(self) -> str:
        """The phase of the worst moment."""
        return max(self.phases, key=lambda name: size_of(self.phases[name]))

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


def plan_stage(stage: str, job: Job) -> Plan:
    """The plan of a stage by its name.

    Raises:
        UserError: no config to plan with; batches that do not come out even.
    """
    plan = PLANNERS[stage](job)
    if not job.machines.card.is_gpu:
        plan.phases = {n: added(p, {LIBRARIES: LIBRARY_BYTES}) for n, p in plan.phases.items()}
    return plan


def plan_sft(job: Job) -> Plan:
    """Stage 1."""
    s = job.s
    shape = job.shape(s.batch_size, s.micro_batch_size)
    variant = job.variant(s.model, "policy")
    rows, width = shape.micro_batch_size, job.width // s.sequence_ranks
    scored = -(-s.max_response_tokens // s.sequence_ranks)
    packed = s.pack_tokens > 0
    if packed:
        rows, width = -(-rows * width // max(s.pack_tokens, width)), max(s.pack_tokens, width)
        scored = min(width, -(-shape.micro_batch_size * scored // rows))
    memory = _trained(job, variant, shape.accumulation, rows, width, scored, packed)
    evaluated = passes(variant, s.eval_batch_size, job.width, s.max_response_tokens).forward
    phases = _phases(memory, evaluated, count(variant), job)
    plan = Plan("sft", job, {"model": count(variant)}, phases, memory.host)
    plan.unit = training(job, variant, shape, job.width, s.max_response_tokens)
    return _with_steps(plan)


def plan_reward(job: Job) -> Plan:
    """Stage 2's training."""
    s = job.s
    shape = job.shape(s.batch_size, s.micro_batch_size)
    variant = job.variant(s.model or _made(job, "sft"), "scalar")
    width = s.max_prompt_tokens + RANKED_RESPONSES * s.max_response_tokens
    memory = _trained(job, variant, shape.accumulation, shape.micro_batch_size, width, 1, True)
    evaluated = passes(variant, s.eval_batch_size, width, packed=True).forward
    phases = _phases(memory, evaluated, count(variant), job)
    plan = Plan("reward", job, {"model": count(variant)}, phases, memory.host)
    plan.unit = training(job, variant, shape, width, 0)
    plan.assumptions.append(
        f"a prompt has {RANKED_RESPONSES} responses that are compared, and is read once for all"
    )
    return _with_steps(plan)


def plan_dpo(job: Job) -> Plan:
    """Stage 3 without RL: every response of a prompt is a row."""
    s = job.s
    shape = job.shape(s.batch_size, s.micro_batch_size)
    variant = job.variant(s.model or _made(job, "sft"), "policy")
    rows = shape.micro_batch_size * RANKED_RESPONSES
    memory = _trained(
        job, variant, shape.accumulation, rows, job.width, s.max_response_tokens, False
    )
    tried = s.eval_batch_size * RANKED_RESPONSES
    evaluated = passes(variant, tried, job.width, s.max_response_tokens).forward
    phases = _phases(memory, evaluated, count(variant), job)
    plan = Plan("dpo", job, {"model": count(variant)}, phases, memory.host)
    plan.unit = training(job, variant, shape, job.width, s.max_response_tokens)
    plan.unit = plan.unit.times(RANKED_RESPONSES)
    plan.assumptions.append(f"a prompt has {RANKED_RESPONSES} responses that are compared")
    return _with_steps(plan)


def plan_sample(job: Job) -> Plan:
    """Stage 2's sampling: a whole model on each rank."""
    s = job.s
    variant = job.variant(s.model or _made(job, "sft"), "policy", train=False)
    counts = count(variant)
    weights = {WEIGHTS: counts.weights * job.dtype.itemsize}
    phases = {
        "loading": loaded(counts.weights, job.spread()),
        "sampling": added(weights, generation_memory(job, variant)),
    }
    plan = Plan("sample", job, {"model": counts}, phases)
    plan.unit = decoding(job, variant, s.responses)
    return _with_prompts(plan)


def plan_evaluation(job: Job) -> Plan:
    """The last stage: a language model and the reward model, whole on each rank."""
    s = job.s
    policy = job.variant(s.rlhf or _made(job, "actor"), "policy", train=False)
    reward = job.variant(s.reward or _made(job, "reward"), "scalar", train=False)
    models = {"model": count(policy), "reward": count(reward)}
    width = job.dtype.itemsize
    weights = {WEIGHTS: sum(c.weights for c in models.values()) * width}
    scored = passes(reward, s.generation_batch_size, job.width).forward
    phases = {
        # The second model is loaded while the first and its reward model are still there.
        "loading": added(weights, loaded(models["model"].weights, job.spread())),
        "answering": added(weights, generation_memory(job, policy)),
        "scoring": added(weights, scored),
    }
    plan = Plan("evaluation", job, models, phases)
    answers = 2 * (s.samples + 1)  # of both models, one of them greedy
    plan.unit = decoding(job, policy, answers) + scoring(job, reward, answers)
    return _with_prompts(plan)


def plan_rlhf(job: Job) -> Plan:
    """Stage 3: four models, or one base in four roles."""
    s = job.s
    actor = job.variant(s.actor or _made(job, "sft"), "policy")
    places = parse_rewards(s.reward, default=_made(job, "reward"))
    paths = {p.name: p.path for p in places if p.kind == "model"}
    from_reward = s.critic_from == "reward" and paths
    critic_path = next(iter(paths.values())) if from_reward else s.actor or _made(job, "sft")
    critic = job.variant(critic_path, "scalar")
    reference = job.variant(s.actor or _made(job, "sft"), "policy", adapters=False, train=False)
    rewards = {
        f"reward {name}" if len(paths) > 1 else "reward": job.variant(
            path, "scalar", adapters=s.one_base, train=False
        )
        for name, path in paths.items()
    }
    roles = {"actor": actor, "critic": critic, "reference": reference, **rewards}
    models = {name: count(v) for name, v in roles.items()}
    shape = job.shape(s.mini_batch_size, s.micro_batch_size)
    rows = shape.micro_batch_size
    wholes = {n: job.fits_whole(c.weights) for n, c in models.items()}
    entropy = "gradient" if s.entropy_coefficient else "no"
    traces = {
        "actor": passes(actor, rows, job.width, s.max_response_tokens, train=True, entropy=entropy),
        "critic": passes(critic, rows, job.width, train=True),
    }
    trained: dict[str, EngineMemory] = {}
    for name in ("actor", "critic"):
        spread = job.spread(shape.accumulation, wholes[name])
        counts = models[name]
        if s.one_base:  # adapters are whole on every rank, whatever the base is
            stage = str(min(spread.zero.stage, 2))
            zero = type(spread.zero)(stage, offload_optimizer=spread.zero.offload_optimizer)
            spread = type(spread)(
                zero, spread.ranks, spread.width, spread.is_gpu, False, shape.accumulation
            )
            counts = counts._replace(weights=counts.trained)
        trained[name] = engine_memory(counts, spread, traces[name])
    frozen_names = ("reference",) if s.one_base else ("reference", *rewards)
    frozen = added(
        *(frozen_memory(models[n].weights, job.spread(whole=wholes[n])) for n in frozen_names)
    )
    if s.one_base and rewards:  # the reward model's adapters and head
        extra = models["reward"].weights - models["reference"].weights
        frozen = added(frozen, {WEIGHTS: max(extra, 0) * job.dtype.itemsize})
    phases = _ppo_phases(job, models, trained, frozen, actor, reference, rewards)
    host = added(*(m.host for m in trained.values()))
    if s.offload_idle and job.machines.card.is_gpu:
        host = added(
            host, frozen, *({OPTIMIZER: m.rest.get(OPTIMIZER, 0)} for m in trained.values())
        )
    plan = Plan("rlhf", job, models, phases, host)
    share = s.rollout_batch_size // job.machines.ranks
    work = decoding(job, actor, 1, prompts=s.rollout_batch_size)
    for variant in roles.values():
        work += scoring(job, variant, 1, prompts=s.rollout_batch_size)
    for variant, scored in ((actor, s.max_response_tokens), (critic, 0)):
        update = training(job, variant, shape, job.width, scored)
        work += update.times(s.ppo_epochs * s.rollout_batch_size // s.mini_batch_size)
    plan.unit, plan.unit_name, plan.units = work, "PPO step", s.steps
    plan.how_many = f"of {s.rollout_batch_size} responses"
    plan.assumptions.append(f"{share} responses a rank and rollout, each as long as it may be")
    return plan


def _ppo_phases(
    job: Job,
    models: Mapping[str, Counts],
    trained: Mapping[str, EngineMemory],
    frozen: Kinds,
    actor: Variant,
    reference: Variant,
    rewards: Mapping[str, Variant],
) -> dict[str, Kinds]:
    s, width = job.s, job.dtype.itemsize
    idle = s.offload_idle and job.machines.card.is_gpu
    rest = added(*(m.rest for m in trained.values()))
    working = {k: v for k, v in rest.items() if not (idle and k == OPTIMIZER)}
    here = {} if idle else frozen
    shape = job.shape(s.mini_batch_size, s.micro_batch_size)
    spreads = {n: job.spread(shape.accumulation, job.fits_whole(models[n].weights)) for n in models}
    base = "reference" if s.one_base else "actor"
    put_together = gathered(models[base].weights, spreads[base])
    together = {BUFFERS: models[base].weights * width} if put_together else {}
    merged = {}
    if s.lora_rank and not s.one_base and s.merge_adapters != "never":
        plain = models["actor"].weights - models["actor"].trained - models["actor"].embeddings
        merged = {WEIGHTS: plain * width}
    phases = {"loading": _ppo_loading(job, models, trained, frozen)}
    free = job.machines.card.memory - size_of(added(working, here))
    at_once = s.gather == "all" or (
        s.gather == "auto" and size_of(added(together, merged)) <= 0.8 * max(free, 0)
    )
    if not at_once:  # layer by layer; adapters stay beside their weights
        together, merged = put_together, {}
    rollout = generation_memory(job, actor)
    phases["rollout"] = added(working, here, together, merged, rollout)
    kept: dict[str, Kinds] = {"actor": {}, "critic": {}}
    if s.reuse_scoring:
        critic = job.variant(s.actor or _made(job, "sft"), "scalar")
        rows = shape.micro_batch_size
        kept["actor"] = passes(
            actor, rows, job.width, s.max_response_tokens, train=True, entropy="value"
        ).forward
        kept["critic"] = passes(critic, rows, job.width, train=True).forward
    scored = [
        added(
            passes(v, s.score_batch_size, job.width, s.max_response_tokens, entropy=e).forward,
            gathered(models[n].weights, spreads[n]),
        )
        for n, v, e in (
            ("actor", actor, "value"),
            ("reference", reference, "no"),
            *((name, reward, "no") for name, reward in rewards.items()),
        )
    ]
    small = [
        passes(v, shape.micro_batch_size, job.width, s.max_response_tokens).forward
        for v in (reference, *rewards.values())
    ]
    alternatives = [*scored, *(added(kept["actor"], kept["critic"], x) for x in small)]
    phases["scoring"] = added(working, frozen, max(alternatives, key=size_of))
    if shape.accumulation > 1:
        # The critic's kept graph waits only until then.
        first = added(trained["actor"].moments["forward"], kept["critic"])
        phases["training the actor, first"] = added(rest, here, first)
    for name in ("actor", "critic"):
        moments = dict(trained[name].moments)
        for part in moments.keys() if name == "actor" and shape.accumulation == 1 else ():
            moments[part] = added(moments[part], kept["critic"])
        saving = moments.pop("saving", {})
        phases[f"saving the {name}"] = added(rest, here, saving)
        worst = max(moments.values(), key=size_of)
        phases[f"training the {name}"] = added(rest, here, worst)
    return phases


def _ppo_loading(
    job: Job, models: Mapping[str, Counts], trained: Mapping[str, EngineMemory], frozen: Kinds
) -> Kinds:
    """Actor's and critic's engines are made when the frozen models are where they stay."""
    waiting = {} if job.machines.card.is_gpu else {WEIGHTS: models["critic"].weights * 4}
    if job.s.one_base:
        waiting = {}
    actor = trained["actor"]
    made = {k: v for k, v in actor.rest.items() if k != OPTIMIZER}
    first = added(frozen, actor.loading, waiting)
    second = added(frozen, made, trained["critic"].loading)
    read = (
        {}
        if job.machines.card.is_gpu
        else {
            WEIGHTS: 4
            * sum(c.weights for n, c in models.items() if n == "reference" or not job.s.one_base)
        }
    )
    return max((first, second, read), key=size_of)


def generation_memory(job: Job, variant: Variant) -> Kinds:
    """The decoding loop beside the weights (`common.hybrid_engine.decoding`)."""
    s, config = job.s, read_config(variant.source)
    slots, width = s.generation_batch_size, job.dtype.itemsize
    if "rollout_batch_size" in job.values:
        slots = min(slots, s.rollout_batch_size // job.machines.ranks)
    held = kv_elements(config) * width
    distinct = slots if job.values.get("responses", 1) == 1 else -(-slots // s.responses)
    encoded = distinct * s.max_prompt_tokens * held
    cache = slots * job.width * held
    prompt = passes(variant, distinct, s.max_prompt_tokens).forward
    vocabulary = config.vocab_size
    # Logits, in fp32, their softmax, and its sums in fp64.
    drawing = slots * vocabulary * (width + (FP32 if width < FP32 else 0) + FP32 + 8)
    while_reading = {CACHE: cache + encoded, ACTIVATIONS: prompt.get(ACTIVATIONS, 0)}
    while_drawing = {CACHE: cache, LOGITS: drawing}
    return max((while_reading, while_drawing), key=size_of)


def _trained(
    job: Job, variant: Variant, accumulation: int, rows: int, width: int, scored: int, packed: bool
) -> EngineMemory:
    trace = passes(variant, rows, width, scored, train=True, packed=packed)
    return engine_memory(count(variant), job.spread(accumulation), trace)


def _phases(memory: EngineMemory, evaluated: Kinds, counts: Counts, job: Job) -> dict[str, Kinds]:
    """Absolute, of a stage that trains one model."""
    phases = {"loading": memory.loading}
    for name, moment in memory.moments.items():
        phases[name] = added(memory.rest, moment)
    here = gathered(counts.weights, job.spread())
    phases["evaluation"] = added(memory.rest, evaluated, here)
    return phases


def _with_steps(plan: Plan) -> Plan:
    """Optimizer steps of supervised training (see `common.training.supervised.total_steps`)."""
    s, examples = plan.job.s, examples_of(plan.job)
    plan.how_many = f"{s.epochs:g} × examples / {s.batch_size}"
    if examples:
        plan.units = max(1, round(s.epochs * -(-examples // s.batch_size)))
        plan.how_many = f"{s.epochs:g} × {examples} examples / {s.batch_size}"
    return plan


def _with_prompts(plan: Plan) -> Plan:
    plan.unit_name, plan.units = "prompt", examples_of(plan.job) or None
    plan.how_many = "as many as the data has"
    return plan


def _made(job: Job, name: str) -> str:
    """Where an earlier stage of the run leaves its model."""
    return f"{job.s.run}/models/{name}"


PLANNERS = {
    "sft": plan_sft,
    "sample": plan_sample,
    "reward": plan_reward,
    "dpo": plan_dpo,
    "rlhf": plan_rlhf,
    "evaluation": plan_evaluation,
}
