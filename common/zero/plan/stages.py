"""Plans of the stages that have ranks: which models are in memory when, in which passes."""

from dataclasses import replace

from common.zero.plan.plans import (
    LIBRARIES,
    LIBRARY_BYTES,
    Plan,
    generating_weights,
    generation_memory,
    made,
    with_prompts,
    with_steps,
)
from common.zero.plan.ppo import plan_rlhf
from common.zero.plan.rates import decoding, scoring, training
from common.zero.plan.settings import Job, is_there
from common.zero.plan.shapes import Counts, Variant, count, passes
from common.zero.plan.states import (
    WEIGHTS,
    EngineMemory,
    added,
    copied,
    engine_memory,
    frozen_memory,
    gathered,
    loaded,
)
from common.zero.plan.trace import Kinds

BEST = "best weights"
RANKED_RESPONSES = 4
"""Of a prompt in reward training: the two best and the two worst (paper §3.2)."""


def plan_stage(stage: str, job: Job) -> Plan:
    """The plan of a stage by its name.

    Raises:
        UserError: no config to plan with; batches that do not come out even.
    """
    plan = PLANNERS[stage](job)
    if job.machines.card.is_gpu:
        weights = [c.weights for c in plan.models.values()]
        # Stage 3 reads its models one after the other, before any goes to the card.
        read = sum(weights) if stage == "rlhf" and not job.s.one_base else max(weights)
        plan.host_loading = read * job.dtype.itemsize
    else:
        plan.phases = {n: added(p, {LIBRARIES: LIBRARY_BYTES}) for n, p in plan.phases.items()}
        plan.assumptions.append(
            "what is freed goes back to the system; the launchers let the C library keep it, and "
            "a process then held up to 2.3 times as much (launch/README.md)"
        )
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
    return with_steps(plan)


def plan_reward(job: Job) -> Plan:
    """Stage 2's training."""
    s = job.s
    shape = job.shape(s.batch_size, s.micro_batch_size)
    variant = job.variant(s.model or made(job, "sft"), "scalar")
    width = s.max_prompt_tokens + RANKED_RESPONSES * s.max_response_tokens
    memory = _trained(job, variant, shape.accumulation, shape.micro_batch_size, width, 1, True)
    evaluated = passes(variant, s.eval_batch_size, width, packed=True).forward
    if s.patience:
        _keep_best(job, count(variant), memory)
    phases = _phases(memory, evaluated, count(variant), job)
    plan = Plan("reward", job, {"model": count(variant)}, phases, memory.host)
    plan.unit = training(job, variant, shape, width, 0)
    plan.assumptions.append(
        f"a prompt has {RANKED_RESPONSES} responses that are compared, and is read once for all"
    )
    return with_steps(plan)


def plan_dpo(job: Job) -> Plan:
    """Stage 3 by DPO: one language model, whose scores as they were are the reference's."""
    s = job.s
    shape = job.shape(s.batch_size, s.micro_batch_size)
    variant = job.variant(s.model or made(job, "sft"), "policy")
    rows, scored = shape.micro_batch_size * RANKED_RESPONSES, s.max_response_tokens
    memory = _trained(job, variant, shape.accumulation, rows, job.width, scored, False)
    evaluated = passes(variant, s.eval_batch_size * RANKED_RESPONSES, job.width, scored).forward
    found = _phases(memory, evaluated, count(variant), job)
    plan = Plan("dpo", job, {"model": count(variant)}, found, memory.host)
    each = training(job, variant, shape, job.width, scored)
    plan.unit = replace(each.times(RANKED_RESPONSES), sent_bytes=each.sent_bytes)
    plan.assumptions.append(f"a prompt has {RANKED_RESPONSES} responses that are compared")
    return with_steps(plan)


def plan_sample(job: Job) -> Plan:
    """Stage 2's sampling: a whole model on each rank."""
    s = job.s
    variant = job.variant(s.model or made(job, "sft"), "policy", train=False)
    counts = count(variant)
    weights = generating_weights(job, counts)
    phases = {
        "loading": loaded(counts, job.spread()),
        "sampling": added(weights, generation_memory(job, variant)),
    }
    plan = Plan("sample", job, {"model": counts}, phases)
    plan.unit = decoding(job, variant, s.responses)
    return with_prompts(plan)


def plan_evaluation(job: Job) -> Plan:
    """The last stage: a language model and, where there is one, the reward model, whole."""
    s = job.s
    policy = job.variant(s.rlhf or made(job, "actor"), "policy", train=False)
    path = s.reward or made(job, "reward")
    models = {"model": count(policy)}
    reward = None
    if s.reward or is_there(path) or job.values.get("plan_model"):
        reward = job.variant(path, "scalar", train=False)
        models["reward"] = count(reward)
    held = [frozen_memory(c, job.spread(whole=job.fits_whole(c.weights))) for c in models.values()]
    weights, judge = added(*held), added(*held[1:])
    phases = {
        # The second model is loaded while the first and its reward model are still there.
        "loading": added(weights, loaded(models["model"], job.spread())),
        "answering": added(
            generating_weights(job, models["model"]), judge, generation_memory(job, policy)
        ),
    }
    answers = (2 + len(s.further)) * (s.samples + 1)  # of all models, one of them greedy
    unit = decoding(job, policy, answers)
    if reward is not None:
        scored = passes(reward, s.generation_batch_size, job.width).forward
        here = {} if job.machines.ranks == 1 else gathered(models["reward"].weights, job.spread())
        phases["scoring"] = added(weights, scored, here)
        unit += scoring(job, reward, answers)
    plan = Plan("evaluation", job, models, phases, unit=unit)
    return with_prompts(plan)


def _trained(
    job: Job, variant: Variant, accumulation: int, rows: int, width: int, scored: int, packed: bool
) -> EngineMemory:
    trace = passes(variant, rows, width, scored, train=True, packed=packed)
    return engine_memory(count(variant), job.spread(accumulation), trace)


def _keep_best(job: Job, counts: Counts, memory: EngineMemory) -> None:
    """The weights of the best evaluation, which an early stop goes back to."""
    best = copied(counts, job.spread())
    if job.machines.card.is_gpu:
        memory.host = added(memory.host, {BEST: best})
    else:  # the host's memory is the process's
        memory.rest = added(memory.rest, {WEIGHTS: best})


def _phases(memory: EngineMemory, evaluated: Kinds, counts: Counts, job: Job) -> dict[str, Kinds]:
    """Absolute, of a stage that trains one model."""
    phases = {"loading": memory.loading}
    for name, moment in memory.moments.items():
        phases[name] = added(memory.rest, moment)
    here = gathered(counts.weights, job.spread())
    phases["evaluation"] = added(memory.rest, evaluated, here)
    return phases


PLANNERS = {
    "sft": plan_sft,
    "sample": plan_sample,
    "reward": plan_reward,
    "rlhf": plan_rlhf,
    "dpo": plan_dpo,
    "evaluation": plan_evaluation,
}
