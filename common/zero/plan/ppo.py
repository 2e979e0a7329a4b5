"""The plan of stage 3: four models, or one base in four roles, and what PPO does with them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from common.config.arguments import ZeroArguments
from common.errors import UserError
from common.reward.places import parse_rewards
from common.zero.plan.plans import FREE_SHARE, Plan, generation_memory, made
from common.zero.plan.rates import decoding, scoring, training
from common.zero.plan.settings import Job
from common.zero.plan.shapes import Counts, Variant, count, passes
from common.zero.plan.states import (
    BUFFERS,
    OPTIMIZER,
    WEIGHTS,
    EngineMemory,
    Spread,
    added,
    copied,
    engine_memory,
    frozen_memory,
    gathered,
    size_of,
)
from common.zero.plan.trace import Kinds, Trace

TRAINED = ("actor", "critic")
AVERAGE = "average"


@dataclass(frozen=True)
class Roles:
    """The four models."""

    job: Job
    variants: Mapping[str, Variant]
    counts: Mapping[str, Counts]
    traces: Mapping[str, Trace]
    """Of a micro-batch of the two that are trained."""
    trained: Mapping[str, EngineMemory]
    spreads: Mapping[str, Spread]
    """Of the weights that a role works with."""
    frozen: Kinds
    """Reference and reward model, between forwards; with one base, that base."""

    @property
    def rest(self) -> Kinds:
        """Both engines between two steps."""
        return added(*(self.trained[name].rest for name in TRAINED))

    @property
    def idles_away(self) -> bool:
        """Whether what is not at work waits on the host."""
        return self.job.s.offload_idle and self.job.machines.card.is_gpu

    @property
    def sent_away(self) -> Kinds:
        """Frozen weights that wait on the host but for scoring; one base is the actor's, too."""
        if not self.idles_away:
            return {}
        if self.job.s.one_base:
            return {WEIGHTS: self.counts["reward"].trained * self.job.dtype.itemsize}
        return self.frozen

    @property
    def here(self) -> Kinds:
        """Frozen weights that stay."""
        away = self.sent_away
        return {k: v - away.get(k, 0) for k, v in self.frozen.items()}


def plan_rlhf(job: Job) -> Plan:
    """Stage 3."""
    s, roles = job.s, roles_of(job)
    host = added(*(m.host for m in roles.trained.values()), _average(roles))
    if roles.idles_away:
        host = added(host, roles.sent_away, {OPTIMIZER: roles.rest.get(OPTIMIZER, 0)})
    host = host if job.machines.card.is_gpu else {}
    plan = Plan("rlhf", job, dict(roles.counts), phases(roles), host)
    shape = job.shape(s.mini_batch_size, s.micro_batch_size)
    work = decoding(job, roles.variants["actor"], 1, prompts=s.rollout_batch_size)
    for variant in roles.variants.values():
        work += scoring(job, variant, 1, prompts=s.rollout_batch_size)
    updates = s.ppo_epochs * s.rollout_batch_size // s.mini_batch_size
    for name, scored in (("actor", s.max_response_tokens), ("critic", 0)):
        work += training(job, roles.variants[name], shape, job.width, scored).times(updates)
    plan.unit, plan.unit_name, plan.units = work, "PPO step", s.steps
    plan.how_many = f"of {s.rollout_batch_size} responses"
    share = s.rollout_batch_size // job.machines.ranks
    plan.assumptions.append(f"{share} responses a rank and rollout, each as long as it may be")
    return plan


def roles_of(job: Job) -> Roles:
    """The four models as `common.ppo.models` loads them, and `common.ppo.build` puts them."""
    s = job.s
    sft = s.actor or made(job, "sft")
    places = [p.path for p in parse_rewards(s.reward, made(job, "reward")) if p.kind == "model"]
    if not places and (s.critic_from == "reward" or s.one_base):
        raise UserError(
            "no source of rewards is a model, which --critic_from reward and --one_base true need"
        )
    variants = {
        "actor": job.variant(sft, "policy"),
        "critic": job.variant(sft if s.critic_from == "sft" else places[0], "scalar"),
        "reference": job.variant(sft, "policy", adapters=False, train=False),
    }
    for number, path in enumerate(places):  # none, where functions or endpoints score
        name = "reward" if number == 0 else f"reward {number + 1}"
        variants[name] = job.variant(path, "scalar", adapters=s.one_base, train=False)
    counts = {name: count(variant) for name, variant in variants.items()}
    shape = job.shape(s.mini_batch_size, s.micro_batch_size)
    rows, entropy = shape.micro_batch_size, "gradient" if s.entropy_coefficient else "no"
    traces = {
        "actor": passes(
            variants["actor"], rows, job.width, s.max_response_tokens, train=True, entropy=entropy
        ),
        "critic": passes(variants["critic"], rows, job.width, train=True),
    }
    bases = {n: "reference" if s.one_base else n for n in variants}
    spreads = {
        n: job.spread(shape.accumulation, job.fits_whole(counts[b].weights))
        for n, b in bases.items()
    }
    trained = {}
    for name in TRAINED:
        spread, own = spreads[name], counts[name]
        if s.one_base:  # adapters are whole on every rank, whatever the base is
            zero = ZeroArguments(
                str(min(job.zero.stage, 2)),
                offload_optimizer="none" if job.zero.offload_optimizer == "none" else "cpu",
            )
            spread, own = replace(spread, zero=zero, whole=False), own._replace(weights=own.trained)
        trained[name] = engine_memory(own, spread, traces[name])
    parts = [frozen_memory(counts["reference"], spreads["reference"])]
    for name in counts.keys() - {*TRAINED, "reference"}:
        if s.one_base:
            parts.append({WEIGHTS: counts[name].trained * job.dtype.itemsize})
        else:
            parts.append(frozen_memory(counts[name], spreads[name]))
    return Roles(job, variants, counts, traces, trained, spreads, added(*parts))


def phases(roles: Roles) -> dict[str, Kinds]:
    """Absolute, by phase."""
    s, kept = roles.job.s, graphs(roles)
    found = {
        "loading": _loading(roles),
        "rollout": _rollout(roles),
        "scoring": _scoring(roles, kept),
    }
    resting = added(roles.rest, roles.here, _average_here(roles))
    for name in TRAINED:
        moments = dict(roles.trained[name].moments)
        saving = moments.pop("saving", {})
        beside: Kinds = {}
        if name == "actor":  # the graph that the critic keeps waits for the whole of its update
            beside = added(kept["critic"], _pretraining(roles))
        worst = added(max(moments.values(), key=size_of), beside)
        if s.one_base:
            worst = added(worst, _gathered(roles, name))
        found[f"training the {name}"] = added(resting, worst)
        found[f"saving the {name}"] = added(resting, saving)
    return found


def graphs(roles: Roles) -> dict[str, Kinds]:
    """What the forwards that score the first micro-batch keep for the update."""
    job, s = roles.job, roles.job.s
    if not s.reuse_scoring:
        return {name: {} for name in TRAINED}
    rows = job.shape(s.mini_batch_size, s.micro_batch_size).micro_batch_size
    actor, critic = (roles.variants[name] for name in TRAINED)
    scored = passes(
        actor, rows, job.width, s.max_response_tokens, train=True, entropy="value"
    ).forward
    return {"actor": scored, "critic": passes(critic, rows, job.width, train=True).forward}


def _rollout(roles: Roles) -> Kinds:
    """Weights gathered and merged, as `common.hybrid_engine` does it, and the cache."""
    s, width = roles.job.s, roles.job.dtype.itemsize
    working = _without_states(roles)
    counts = roles.counts["reference" if s.one_base else "actor"]
    layerwise = _gathered(roles, "actor")
    together = {BUFFERS: counts.weights * width} if layerwise else {}
    merged: Kinds = {}
    if s.lora_rank and s.merge_adapters != "never" and not s.one_base:
        merged = {WEIGHTS: (counts.weights - counts.trained - counts.embeddings) * width}
    free = roles.job.machines.card.memory - size_of(working)
    at_once = s.gather == "all" or (
        s.gather == "auto" and size_of(added(together, merged)) <= FREE_SHARE * max(free, 0)
    )
    if layerwise and not at_once:  # adapters then stay beside their weights
        together, merged = layerwise, {}
    return added(working, together, merged, generation_memory(roles.job, roles.variants["actor"]))


def _scoring(roles: Roles, kept: Mapping[str, Kinds]) -> Kinds:
    """Each model reads a batch; in the last, actor and critic keep their graphs."""
    job, s = roles.job, roles.job.s
    rows = job.shape(s.mini_batch_size, s.micro_batch_size).micro_batch_size
    moments = []
    for name, variant in roles.variants.items():
        entropy = "value" if name == "actor" else "no"
        scored = passes(
            variant, s.score_batch_size, job.width, s.max_response_tokens, entropy=entropy
        )
        moments.append(added(scored.forward, _gathered(roles, name)))
        if name not in TRAINED:
            last = passes(variant, rows, job.width, s.max_response_tokens)
            moments.append(added(kept["actor"], kept["critic"], last.forward))
    return added(_without_states(roles), roles.sent_away, max(moments, key=size_of))


def _loading(roles: Roles) -> Kinds:
    """Engines are made when the frozen models are where they stay; on a CPU what is read is in the
    same memory."""
    job, actor = roles.job, roles.trained["actor"]
    files = ("reference",) if job.s.one_base else tuple(roles.counts)
    read: Kinds = {}
    waiting: Kinds = {}
    if not job.machines.card.is_gpu:
        width = job.dtype.itemsize
        read = {WEIGHTS: width * sum(roles.counts[n].weights for n in files)}
        waiting = {WEIGHTS: width * roles.counts["critic"].weights} if "critic" in files else {}
    made_first = {k: v for k, v in actor.rest.items() if k != OPTIMIZER}
    first = added(roles.frozen, actor.loading, waiting)
    second = added(roles.frozen, made_first, roles.trained["critic"].loading)
    return max((first, second, read), key=size_of)


def _average(roles: Roles) -> Kinds:
    """The actor's averaged weights, in fp32 on the host; of those that all hold on one rank."""
    if not roles.job.s.ema_decay:
        return {}
    return {AVERAGE: copied(roles.counts["actor"], roles.spreads["actor"])}


def _pretraining(roles: Roles) -> Kinds:
    """Examples of PPO-ptx, which an actor's micro-batch has beside its own rows."""
    job, s = roles.job, roles.job.s
    if not s.ptx_coefficient:
        return {}
    accumulation = job.shape(s.mini_batch_size, s.micro_batch_size).accumulation
    rows = -(-s.ptx_batch_size // (job.machines.ranks * accumulation))
    actor = roles.variants["actor"]
    return passes(actor, rows, job.width, s.max_response_tokens, train=True).forward


def _without_states(roles: Roles) -> Kinds:
    """What is there while responses are generated and scored."""
    idle = roles.idles_away
    working = {k: v for k, v in roles.rest.items() if not (idle and k == OPTIMIZER)}
    return added(working, roles.here, _average_here(roles))


def _average_here(roles: Roles) -> Kinds:
    """On a CPU the host's memory is the process's."""
    return {} if roles.job.machines.card.is_gpu else {WEIGHTS: size_of(_average(roles))}


def _gathered(roles: Roles, name: str) -> Kinds:
    weights = roles.counts["reference" if roles.job.s.one_base else name].weights
    return gathered(weights, roles.spreads[name])
