"""One optimizer step of every loss, however it is cut up, against plain torch in float64.

The expectations come from `plain.py`: batches of one without padding, plain Python over the
tokens, one backward of the mean.
"""

import math
from dataclasses import fields

import pytest
import torch

from common.config.arguments import (
    ModelArguments,
    OptimizerArguments,
    SamplingArguments,
    ZeroArguments,
)
from common.dpo.training import DPOArguments, DPOObjective
from common.errors import UserError
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.loading import load_causal_lm
from common.models.policy import PolicyModel
from common.models.scalar import load_scalar_model
from common.ppo.arguments import PPOArguments
from common.ppo.experience import Experience
from common.ppo.pretraining import PretrainingArguments, PretrainingMix
from common.ppo.trainer import PPOTrainer
from common.reward.training import PairObjective, RewardArguments
from common.training.distributed import all_reduce_scalars, rank, world_size
from common.training.engine import (
    build_engine,
    build_frozen,
    gathered_parameters,
    optimizer_step,
    process_group,
)
from common.training.guard import Guard, GuardArguments
from common.training.loop import Loop, Unsaved
from common.training.sft import SFTObjective
from common.training.supervised import train_supervised
from tests.common.training.plain import (
    BATCH,
    CENTRING,
    CLIP,
    MARGIN,
    SCORE_PENALTY,
    TEMPERATURE,
    VALUE_CLIP,
    comparisons,
    dpo_mean,
    experience,
    gradients_of,
    policy_mean,
    reference_logprobs,
    reward_mean,
    sft_examples,
    sft_mean,
    value_mean,
    with_old_logprobs,
)
from tests.models import save_tiny
from tests.ranks import run_ranks, shard_everything, zero_of

REWARD = RewardArguments("margin", MARGIN, SCORE_PENALTY, CENTRING)
RATE, DECAY, LIMIT = 0.05, 0.3, 0.5
BETA = 0.05
STEPPED = ("0", "1", "2", "3")

# (ranks, micro-batch size, ZeRO config): each cuts the same eight examples differently.
CUTS = {
    "1 rank, batch of 8": (1, 8, "0"),
    "1 rank, four micro-batches of 2": (1, 2, "0"),
    "1 rank, four micro-batches of 2, ZeRO-2": (1, 2, "2"),
    "1 rank, four micro-batches of 2, ZeRO-3": (1, 2, "3"),
    "2 ranks, 4 each": (2, 4, "0"),
    "2 ranks, two micro-batches of 2": (2, 2, "0"),
    "2 ranks, 4 each, ZeRO-2": (2, 4, "2"),
    "2 ranks, two micro-batches of 2, ZeRO-3": (2, 2, "3"),
    "2 ranks, two micro-batches of 2, ZeRO-3 offload": (2, 2, "3 offload"),
    "2 ranks, two micro-batches of 2, ZeRO-1": (2, 2, "1"),
}
LOSSES = (
    *("sft", "sft with fillers", "sft, packed"),
    *("reward", "reward with fillers", "reward, shared prompts"),
    *("dpo", "dpo with fillers"),
    *("policy", "policy with ptx", "value"),
)
PTX = 0.7


# The code under test.


class Numbers:
    """Stands in for a `MetricsWriter`."""

    def __init__(self):
        self.rows = []

    def write(self, step, values):
        self.rows.append(values)


def recorded(engine):
    """A list that takes the whole gradient of every optimizer step, just before it is applied."""
    from deepspeed.utils import safe_get_full_grad

    found, step = [], engine.step

    def record_and_step():
        if engine.is_gradient_accumulation_boundary():
            whole = {n: safe_get_full_grad(p) for n, p in engine.module.named_parameters()}
            found.append({n: g.float().clone() for n, g in whole.items() if g is not None})
        return step()

    engine.step = record_and_step
    return found


def settings(micro, **changes):
    """A learning rate of 0: one engine serves for several measurements."""
    given = {"learning_rate": 0.0, "lr_schedule": "constant", "warmup_ratio": 0.0}
    given |= {"batch_size": BATCH, "micro_batch_size": micro, "evaluations": 1}
    return OptimizerArguments(**{**given, **changes})


def lm_model(folders):
    return PolicyModel(load_causal_lm(folders["llama"], ModelArguments()))


def scalar_model(folders):
    return load_scalar_model(folders["gpt2"], "reward", ModelArguments(), new_head=True)


def engine_of(model, zero, optimizer, **changes):
    return build_engine(
        model,
        zero=zero_of(zero),
        dtype=torch.float32,
        optimizer=optimizer,
        total_steps=4,
        **changes,
    )


def pair_objective(count=BATCH, *, share_prompts):
    return PairObjective(comparisons(count), 0, REWARD, share_prompts=share_prompts)


def dpo_objective(count=BATCH):
    objective = DPOObjective(comparisons(count), 0, DPOArguments(dpo_beta=BETA))
    objective.reference = reference_logprobs()
    return objective


def supervised(engine, objective, optimizer):
    """Trains and returns gradient norm and mean loss of the only step."""
    numbers = Numbers()
    loop = Loop(Unsaved(), numbers, Guard(GuardArguments()))
    train_supervised(
        loop, engine, objective, optimizer, seed=0, evaluate=dict, title="", shown=False
    )
    assert len(numbers.rows) == 1
    return numbers.rows[0]["train/grad_norm"], numbers.rows[0]["train/loss"]


def measure(folders, item, cuts):
    """What this rank sees: gradient, norm and mean loss by loss and by cut; and what follows it."""
    found = {}
    shard_everything()
    with process_group():
        for name, micro, zero in cuts:
            plan = settings(micro)
            lm = engine_of(lm_model(folders), zero, plan)
            scalar = engine_of(scalar_model(folders), zero, plan)
            kept = {lm: recorded(lm), scalar: recorded(scalar)}
            objectives = {
                "sft": (lm, SFTObjective(sft_examples(), 0)),
                "sft with fillers": (lm, SFTObjective(sft_examples(5), 0)),
                "sft, packed": (lm, SFTObjective(sft_examples(5), 0, pack_tokens=24)),
                "reward": (scalar, pair_objective(share_prompts=False)),
                "reward with fillers": (scalar, pair_objective(5, share_prompts=False)),
                "reward, shared prompts": (scalar, pair_objective(share_prompts=True)),
                "dpo": (lm, dpo_objective()),
                "dpo with fillers": (lm, dpo_objective(5)),
            }
            for loss, (engine, objective) in objectives.items():
                norm, mean = supervised(engine, objective, plan)
                found[name, loss] = kept[engine].pop(), norm, mean
            trainer = ppo_trainer(lm, scalar, micro)
            given = PretrainingArguments(PTX, ["ptx.jsonl"], ptx_batch_size=5)
            trainer.pretraining = PretrainingMix(sft_examples(5), 0, given, seed=0)
            sums = all_reduce_scalars(trainer.update(mine(item), step=1))
            mean = sums["policy_loss"] / sums["update_tokens"]
            mean += PTX * sums["ptx_loss"] / sums["ptx_tokens"]
            kept[scalar].pop()
            found[name, "policy with ptx"] = kept[lm].pop(), sums["policy/grad_norm"], mean
            trainer.pretraining = None
            sums = all_reduce_scalars(trainer.update(mine(item), step=1))
            for loss, engine in (("policy", lm), ("value", scalar)):
                mean = sums[f"{loss}_loss"] / sums["update_tokens"]
                found[name, loss] = kept[engine].pop(), sums[f"{loss}/grad_norm"], mean
            assert kept == {lm: [], scalar: []}  # one optimizer step each
        if world_size() == 2:
            for zero in STEPPED:
                found["stepped", zero] = weights_after_a_step(folders, zero)
            found["gradient stopped"] = [error_of_a_gradient(folders, z) for z in STEPPED]
            found["sft stopped"] = error_of_a_loss_that_is_not_finite(folders)
            found["ppo stopped"] = error_of_a_return_that_is_not_finite(folders, item)
            found["frozen"] = frozen_outputs(folders)
    return found


def mine(item):
    """This rank's rows: all of them, or every second one."""
    start, by = rank(), world_size()
    names = [f.name for f in fields(item) if f.name not in ("first", "raw_scores")]
    tensors = {name: getattr(item, name)[start::by].clone() for name in names}
    return Experience(**tensors, raw_scores={k: x[start::by] for k, x in item.raw_scores.items()})


def ppo_trainer(lm, scalar, micro):
    return PPOTrainer(
        actor=lm,
        critic=scalar,
        reference=None,
        rewards=(),
        template=None,
        settings=PPOArguments(
            rollout_batch_size=BATCH,
            mini_batch_size=BATCH,
            micro_batch_size=micro,
            ppo_epochs=1,
            clip_range=CLIP,
            value_clip_range=VALUE_CLIP,
            critic_warmup_steps=0,
        ),
        rollouts=HybridRollout(
            lm,
            SamplingArguments(temperature=TEMPERATURE),
            RolloutArguments(),
            eos_id=2,
            pad_id=0,
            max_new_tokens=9,
        ),
        seed=0,
    )


def weights_after_a_step(folders, zero):
    """The reward model after one clipped step with an Adam whose ε keeps the gradient's size."""
    plan = settings(2, learning_rate=RATE, weight_decay=DECAY, max_grad_norm=LIMIT)
    engine = engine_of(scalar_model(folders), zero, plan, new_modules=("score",), adam_eps=1.0)
    supervised(engine, pair_objective(share_prompts=True), plan)
    with gathered_parameters(engine.module):
        return {n: p.detach().clone() for n, p in engine.module.named_parameters()}


class Broken(SFTObjective):
    """Its fourth example has an infinite loss when it comes up for the second time."""

    seen = 0

    def loss(self, model, indices):
        loss, statistics = super().loss(model, indices)
        self.seen += 3 in indices
        return (loss * math.inf if 3 in indices and self.seen == 2 else loss), statistics


def error_of_a_loss_that_is_not_finite(folders):
    plan = settings(4, epochs=3)
    engine = engine_of(lm_model(folders), "0", plan)
    try:
        supervised(engine, Broken(sft_examples(), 0), plan)
    except UserError as error:
        return str(error)
    return "went on"


def error_of_a_gradient(folders, zero):
    """Rank 1 has a loss of 0 whose gradient is NaN: √x at x = 0 · w."""
    engine = engine_of(scalar_model(folders), zero, settings(8 // world_size()))

    def loss():
        ids = torch.tensor([[5, 6, 7]])
        outputs = engine(ids, torch.ones_like(ids)).sum()
        return (outputs * 0.0).sqrt() if rank() == 1 else outputs

    try:
        optimizer_step(engine, [loss], 1.0, "step 9")
    except UserError as error:
        return str(error)
    return "went on"


def error_of_a_return_that_is_not_finite(folders, item):
    """Rank 1 has the row with the NaN, rank 0 has not."""
    plan = settings(4)
    lm, scalar = (engine_of(m(folders), "0", plan) for m in (lm_model, scalar_model))
    item.returns[1, 0] = math.nan
    try:
        ppo_trainer(lm, scalar, 4).update(mine(item), step=5)
    except UserError as error:
        return str(error)
    return "went on"


FROZEN_INPUTS = (
    torch.tensor([[1, 50, 60, 70]]),
    torch.ones(1, 4, dtype=torch.bool),
    torch.tensor([[False, True, True, True]]),
)
"""Ids, mask, and the tokens asked for."""


def frozen_outputs(folders):
    """Scores of a sharded reference, whether it trains, and how much of it this rank holds."""
    frozen = build_frozen(lm_model(folders), zero=ZeroArguments("3"), dtype=torch.float32)
    held = sum(p.ds_tensor.numel() for p in frozen.parameters())
    with torch.no_grad():
        scores = frozen(*FROZEN_INPUTS).logprobs
    return scores, any(p.requires_grad for p in frozen.parameters()), held


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: str(save_tiny(root / kind, kind)) for kind in ("llama", "gpt2")}


@pytest.fixture(scope="module")
def plain(folders):
    """Gradient and value of each mean, and the PPO data, by plain torch in float64."""
    lm, scalar = lm_model(folders).double(), scalar_model(folders).double()
    item = with_old_logprobs(experience(), lm)
    found = {}
    for loss, model, mean in (
        ("sft", lm, sft_mean(lm)),
        ("sft with fillers", lm, sft_mean(lm, 5)),
        ("sft, packed", lm, sft_mean(lm, 5)),
        ("reward", scalar, reward_mean(scalar)),
        ("reward with fillers", scalar, reward_mean(scalar, 5)),
        ("reward, shared prompts", scalar, reward_mean(scalar)),
        ("dpo", lm, dpo_mean(lm, reference_logprobs(), BETA)),
        ("dpo with fillers", lm, dpo_mean(lm, reference_logprobs(), BETA, count=5)),
        ("policy", lm, policy_mean(lm, item)),
        ("policy with ptx", lm, policy_mean(lm, item) + PTX * sft_mean(lm, 5)),
        ("value", scalar, value_mean(scalar, item)),
    ):
        found[loss] = gradients_of(model, mean), float(mean.detach())
    return found, item


@pytest.fixture(scope="module")
def measured(folders, plain):
    """For each number of ranks, what each rank measured."""
    return {
        ranks: run_ranks(
            measure,
            ranks,
            folders,
            plain[1],
            [(name, micro, zero) for name, (r, micro, zero) in CUTS.items() if r == ranks],
            start_group=False,
        )
        for ranks in (1, 2)
    }


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cut", CUTS)
def test_gradient_is_that_of_the_mean_over_the_whole_batch(measured, plain, cut, loss):
    expected, value = plain[0][loss]
    size = math.sqrt(sum(float((g**2).sum()) for g in expected.values()))
    assert size > 0.01
    for per_rank in measured[CUTS[cut][0]]:
        gradient, norm, mean = per_rank[cut, loss]
        assert gradient.keys() == expected.keys()
        for name, whole in expected.items():
            gap = float((gradient[name].double() - whole).abs().max())
            assert gap < 1e-5 * size, (name, gap, size)
        assert norm == pytest.approx(size, rel=1e-4)
        assert mean == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("zero", STEPPED)
def test_one_step_of_adamw_by_hand(measured, plain, folders, zero):
    """Clipped to half the gradient's norm or less; decay on matrices, but not on the new head."""
    gradient, _ = plain[0]["reward"]
    size = math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))
    assert size > 2 * LIMIT
    before = dict(scalar_model(folders).double().named_parameters())
    for per_rank in measured[2]:
        after = per_rank["stepped", zero]
        assert after.keys() == before.keys()
        for name, old in before.items():
            clipped = gradient[name] * LIMIT / size
            decay = DECAY if old.ndim >= 2 and "score" not in name else 0.0
            # At the first step Adam's moments, unbiased, are g and g².
            expected = old * (1 - RATE * decay) - RATE * clipped / (clipped.abs() + 1.0)
            assert torch.allclose(after[name].double(), expected.detach(), atol=1e-6), name
            assert float((after[name].double() - old).detach().abs().max()) > 1e-5, name


def test_a_loss_that_is_not_finite_stops_all_ranks_and_names_step_and_examples(measured):
    for per_rank in measured[2]:
        message = per_rank["sft stopped"]
        assert "loss is inf at step 2" in message and "sft.jsonl:4" in message


def test_a_gradient_that_is_not_finite_stops_all_ranks(measured):
    for per_rank in measured[2]:
        for message in per_rank["gradient stopped"]:
            assert "at step 9, though the loss is finite" in message


def test_a_ppo_loss_that_is_not_finite_stops_all_ranks_and_names_step_and_batch(measured):
    for per_rank in measured[2]:
        message = per_rank["ppo stopped"]
        assert "value loss is nan on rank 1" in message
        assert "step 5, epoch 1, mini-batch 1" in message


def test_a_frozen_model_is_sharded_and_gives_the_same_outputs(measured, folders):
    model = lm_model(folders)
    with torch.no_grad():
        expected = model.model(FROZEN_INPUTS[0]).logits.log_softmax(-1)[0, [0, 1, 2], [50, 60, 70]]
    whole = sum(p.numel() for p in model.parameters())
    for per_rank in measured[2]:
        scores, trains, held = per_rank["frozen"]
        assert torch.allclose(scores, expected, atol=1e-4)
        assert not trains
        assert held == pytest.approx(whole / 2, rel=0.01)
