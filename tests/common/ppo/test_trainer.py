"""The PPO loop with real engines and models of a few thousand weights."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from common.errors import NotFinite, UserError
from common.ppo.arguments import PPOArguments
from common.ppo.experience import Experience
from common.ppo.held_out import evaluate
from common.ppo.trainer import PPOTrainer, token_counts
from common.training.distributed import rank
from common.training.engine import process_group
from tests.common.ppo.small import (
    LONGEST,
    PROMPTS,
    SETTINGS,
    VOCABULARY,
    Reward,
    small_trainer,
    texts_source,
)
from tests.ranks import run_ranks


def trainer_of(score=lambda prompt, response: float(len(response)), **changes) -> PPOTrainer:
    return small_trainer(
        replace(SETTINGS, **changes),
        Reward(score),
        vocabulary=VOCABULARY,
        max_response_tokens=LONGEST,
    )


def weights(engine) -> list[torch.Tensor]:
    return [p.detach().clone() for p in engine.module.parameters()]


def unchanged(before: list[torch.Tensor], engine) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, weights(engine), strict=True))


def critic_warmup() -> dict[str, object]:
    trainer = trainer_of(critic_warmup_steps=2)
    actor, critic = weights(trainer.actor), weights(trainer.critic)
    found: dict[str, object] = {"actor": [], "critic": [], "values": []}
    for step in (1, 2, 3):
        found["values"].append(trainer.iterate(step, PROMPTS))
        found["actor"].append(unchanged(actor, trainer.actor))
        found["critic"].append(unchanged(critic, trainer.critic))
    found["modes"] = (trainer.actor.module.training, trainer.critic.module.training)
    return found


def update_counts() -> dict[str, dict[str, float]]:
    """Updates of one rollout without and with a limit on the KL."""
    found = {}
    for name, limit in (("none", None), ("wide", 100.0), ("tight", 1e-7)):
        trainer = trainer_of(early_stop_kl=limit, critic_warmup_steps=0)
        rollout = trainer.generate(PROMPTS, "rollout", 1)
        experience = trainer.experience(rollout, PROMPTS)
        sums = trainer.update(experience, 1)
        found[name] = {k: float(v) for k, v in sums.items()}
        found[name]["actions"] = float(experience.mask.sum())
    trainer = trainer_of(early_stop_kl=1e-7, critic_warmup_steps=1)
    values = trainer.update(trainer.experience(rollout, PROMPTS), 1)
    found["warm-up"] = {k: float(v) for k, v in values.items()}
    return found


def not_finite() -> dict[str, object]:
    """Messages of a NaN score in the critic's warm-up, and of one at step 2."""
    found: dict[str, object] = {}
    trainer = trainer_of(lambda prompt, response: math.nan)
    with pytest.raises(UserError) as caught:
        trainer.iterate(1, PROMPTS)
    found["value"] = str(caught.value)
    spoilt = {"now": False}
    trainer = trainer_of(lambda prompt, response: math.nan if spoilt["now"] else 1.0)
    trainer.iterate(1, PROMPTS)
    spoilt["now"] = True
    with pytest.raises(UserError) as caught:
        trainer.iterate(2, PROMPTS)
    found["policy"] = str(caught.value)
    return found


def same_seed() -> list[tuple[list[dict[str, float]], list[torch.Tensor]]]:
    found = []
    for seed in (0, 0, 1):
        trainer = trainer_of()
        trainer.seed = seed
        runs = [trainer.iterate(step, PROMPTS) for step in (1, 2)]
        runs = [{k: v for k, v in r.items() if not k.startswith("time/")} for r in runs]
        found.append((runs, weights(trainer.actor)))
    return found


def adaptive_kl() -> list[tuple[float, float]]:
    """(β, KL per sequence) as logged at each step."""
    trainer = trainer_of(kl_target=0.01, kl_horizon=80.0, critic_warmup_steps=0)
    values = [trainer.iterate(step, PROMPTS) for step in (1, 2, 3)]
    return [(v["kl/coefficient"], v["kl/sequence_k1"]) for v in values]


def start_checks() -> dict[str, str]:
    """What step 1 and step 2 say when the reference has other weights than the actor."""
    found = {}
    for step in (1, 2):
        trainer = trainer_of()
        with torch.no_grad():
            trainer.reference.model.lm_head.weight[4] += 0.1
        try:
            trainer.iterate(step, PROMPTS)
            found[str(step)] = "went on"
        except UserError as error:
            found[str(step)] = str(error)
    return found


def several_sources() -> dict[str, object]:
    """Two steps for a model, and a function of which only the deviation is known as it goes."""
    trainer = trainer_of(score_clip=50.0)
    asked: list[tuple[list[str], list[str]]] = []
    scored: list[float] = []

    def fives(prompts, responses):
        asked.append((prompts, responses))
        scored.extend(float(r.split().count("5")) for r in responses)
        return scored[-len(responses) :]

    trainer.rewards = [*trainer.rewards, texts_source("fives", fives, weight=-2.0)]
    experiences = []
    original = trainer.update
    trainer.update = lambda e, step: experiences.append(e) or original(e, step)
    ended: list[list[bool]] = []
    draw = trainer.generate

    def generate(*args, **kwargs):
        rollout = draw(*args, **kwargs)
        ended.append(rollout.ended.tolist())
        return rollout

    trainer.generate = generate
    values = [trainer.iterate(step, PROMPTS) for step in (1, 2)]
    states = {name: state.state_dict() for name, state in trainer.states().items()}
    trainer.template = SimpleNamespace(decode_response=str)
    drawn = len(scored)
    held_out = evaluate(trainer, PROMPTS[:3], batch_size=2)
    return {
        "values": values,
        "experiences": [(e.raw_scores, e.scores, e.mask) for e in experiences],
        "ended": ended[:2],
        "scored": scored[:drawn],
        "held out scored": scored[drawn:],
        "asked": asked,
        "states": states,
        "held out": held_out,
    }


SCENARIOS = {
    f.__name__: f
    for f in (
        critic_warmup,
        update_counts,
        not_finite,
        same_seed,
        adaptive_kl,
        start_checks,
        several_sources,
    )
}


def run_scenarios() -> dict[str, object]:
    with process_group():
        return {name: scenario() for name, scenario in SCENARIOS.items()}


@pytest.fixture(scope="module")
def found():
    """All scenarios in one process: DeepSpeed takes seconds to import, and one group a process."""
    return run_ranks(run_scenarios, 1, start_group=False)[0]


def test_critic_warmup_leaves_the_actor_untouched_bit_for_bit(found):
    result = found["critic_warmup"]
    assert result["actor"] == [True, True, False]
    assert result["critic"] == [False, False, False]
    first, _, third = result["values"]
    assert first["policy/grad_norm"] == first["policy/learning_rate"] == 0.0
    assert first["policy/loss"] == first["policy/clip_fraction"] == 0.0
    assert first["value/grad_norm"] > 0 and first["value/learning_rate"] == 1e-2
    assert third["policy/grad_norm"] > 0 and third["policy/learning_rate"] == 1e-2


def test_updates_run_in_training_mode(found):
    """Gradient checkpointing works in no other."""
    assert found["critic_warmup"]["modes"] == (True, True)


def test_every_step_logs_what_shows_collapse(found):
    wanted = {
        *("reward/score", "reward/score_std", "reward/raw_score", "reward/total"),
        "reward/penalty",
        *("kl/token_k1", "kl/token_k2", "kl/token_k3", "kl/coefficient"),
        *("kl/sequence_k1", "kl/sequence_k2", "kl/sequence_k3"),
        *("policy/entropy", "policy/loss", "policy/clip_fraction", "policy/approx_kl"),
        *("policy/grad_norm", "policy/learning_rate", "policy/early_stops"),
        *("value/loss", "value/clip_fraction", "value/explained_variance", "value/grad_norm"),
        *("value/learning_rate", "response/length", "response/eos_rate"),
        "rollout/logprob_gap",
        *("time/generate", "time/score", "time/train", "time/step", "time/tokens_per_second"),
    }
    for values in found["critic_warmup"]["values"]:
        assert set(values) == wanted
        assert all(math.isfinite(v) for v in values.values())
        phases = sum(values[f"time/{phase}"] for phase in ("generate", "score", "train"))
        assert 0 < phases <= values["time/step"]
        assert 1 <= values["response/length"] <= LONGEST
        tokens = values["time/tokens_per_second"] * values["time/step"]
        assert tokens == pytest.approx(values["response/length"] * len(PROMPTS))
    first = found["critic_warmup"]["values"][0]
    assert first["kl/sequence_k1"] == pytest.approx(0.0, abs=1e-5)


def test_without_a_limit_all_updates_run(found):
    for name in ("none", "wide"):
        sums = found["update_counts"][name]
        assert (sums["updates"], sums["early_stops"]) == (4.0, 0.0)
        assert sums["update_tokens"] == 2 * sums["actions"]


def test_kl_above_its_limit_skips_the_remaining_updates(found):
    """The first update's ratios are 1, its KL 0; the second one sees what the first has done."""
    sums = found["update_counts"]["tight"]
    assert (sums["updates"], sums["early_stops"]) == (2.0, 1.0)
    # Two mini-batches of the first epoch: every action once.
    assert sums["update_tokens"] == sums["actions"]


def test_the_limit_does_not_stop_a_critics_warmup(found):
    sums = found["update_counts"]["warm-up"]
    assert (sums["updates"], sums["early_stops"]) == (4.0, 0.0)


def test_nan_stops_the_run_and_names_the_step(found):
    result = found["not_finite"]
    assert "the value loss is nan on rank 0" in result["value"] and "step 1" in result["value"]
    assert "critic_learning_rate" in result["value"]
    assert "the policy loss is nan on rank 0" in result["policy"] and "step 2" in result["policy"]
    assert "actor_learning_rate" in result["policy"]


def test_the_same_seed_gives_the_same_run(found):
    (first, actor), (second, same), (other, _) = found["same_seed"]
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(actor, same, strict=True))
    assert first[0]["policy/entropy"] != other[0]["policy/entropy"]


def test_the_coefficient_adapts_after_it_was_used(found):
    (b1, kl1), (b2, kl2), (b3, _) = found["adaptive_kl"]
    assert b1 == 0.1
    for before, kl, after in ((b1, kl1, b2), (b2, kl2, b3)):
        error = max(-0.2, min(0.2, kl / 0.01 - 1))
        assert after == pytest.approx(before * (1 + error * 8 / 80), rel=1e-6)
    assert b2 < b1, "at step 1 the KL is 0: below the target"


def test_a_fresh_run_checks_its_start(found):
    assert "actor and reference differ" in found["start_checks"]["1"]
    assert found["start_checks"]["2"] == "went on"


def test_several_sources_add_up(found):
    result = found["several_sources"]
    assert [len(texts) for _, texts in result["asked"]] == [8, 8, 2, 1]
    assert result["asked"][0][0] == [str(i) for i in range(8)]
    seen, finished = [], []
    steps = zip(result["values"], result["experiences"], result["ended"], strict=True)
    for values, (raw, scores, mask), ended in steps:
        lengths = mask.sum(dim=1).tolist()
        assert raw["reward"].tolist() == lengths
        fives = raw["fives"].tolist()
        seen += fives
        finished += [five for five, whole in zip(fives, ended, strict=True) if whole]
        mean = sum(finished) / len(finished)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in finished) / len(finished))
        for row, (length, five) in enumerate(zip(lengths, fives, strict=True)):
            if length < LONGEST:
                expected = length - 2.0 * (five - mean) / deviation
                assert scores[row].item() == pytest.approx(expected, abs=1e-4)
        assert values["reward/raw_score/reward"] == pytest.approx(sum(lengths) / 8)
        assert values["reward/raw_score/fives"] == pytest.approx(sum(fives) / 8)
    assert seen == result["scored"] and len(set(seen)) > 1
    # In the checkpoint: a resumed run goes on with the same scale.
    assert result["states"].keys() == {"kl", "moments/fives"}
    assert result["states"]["moments/fives"]["count"] == len(finished) < 16
    expected = sum(finished) / len(finished)
    assert result["states"]["moments/fives"]["mean"] == pytest.approx(expected)


def test_held_out_answers_are_scored_by_fixed_scales(found):
    values, fives = (found["several_sources"][name] for name in ("held out", "held out scored"))
    assert values["eval/raw_score/fives"] == pytest.approx(sum(fives) / 3)
    assert values["eval/raw_score/reward"] == pytest.approx(values["eval/response_length"])
    expected = values["eval/raw_score/reward"] - 2.0 * values["eval/raw_score/fives"]
    assert values["eval/score"] == pytest.approx(expected)


# Without engines


def bare_trainer(seed: int = 0) -> PPOTrainer:
    unused = dict.fromkeys(("actor", "critic", "reference", "template", "rollouts"))
    return PPOTrainer(**unused, rewards=(), settings=SETTINGS, seed=seed)


def test_each_epoch_has_a_fresh_permutation():
    trainer = bare_trainer()
    orders = [trainer._order(16, step, epoch).tolist() for step in (1, 2) for epoch in (0, 1, 2)]
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    assert trainer._order(16, 2, 1).tolist() == orders[4]
    assert bare_trainer(seed=1)._order(16, 1, 0).tolist() != orders[0]


LENGTHS = [[3, 1, 4, 2], [1, 5, 1, 5]]
PLAN = [[[[2], [0]], [[3], [1]]], [[[0], [1]], [[2], [3]]]]
"""Epochs of mini-batches of micro-batches of rank 0; rank 1 has them the other way round."""


def counts_on_this_rank() -> list[list[float]]:
    mask = torch.tensor([[t < n for t in range(5)] for n in LENGTHS[rank()]])
    fields = dict.fromkeys(Experience.__dataclass_fields__)
    experience = Experience(**{**fields, "mask": mask})
    plan = [[[torch.tensor(rows) for rows in part] for part in epoch] for epoch in PLAN]
    return token_counts(experience, plan if rank() == 0 else [epoch[::-1] for epoch in plan])


def no_probability(*args, **kwargs) -> None:
    raise NotFinite("no finite probability")


def two_ranks() -> dict[str, object]:
    """A step on two ranks, one rank's NaN, and the counts, in one start of two processes."""
    with process_group():
        mine = PROMPTS[rank() :: 2]
        trainer = trainer_of()
        values = trainer.iterate(1, mine)
        spoilt = trainer_of(lambda prompt, r: math.nan if rank() == 1 else 1.0)
        spoilt.settings.normalize_advantages = False  # which would spread the NaN by itself
        with pytest.raises(UserError) as caught:
            spoilt.iterate(1, mine)
        respond = trainer.rollouts.respond
        if rank() == 1:
            trainer.rollouts.respond = no_probability
        with pytest.raises(NotFinite) as of_rollout:
            trainer.iterate(2, mine)
        trainer.rollouts.respond = respond
        one_fails = lambda p, responses: [1.0] * (len(responses) - rank())  # noqa: E731
        trainer.rewards = [*trainer.rewards, texts_source("rule", one_fails)]
        with pytest.raises(UserError) as of_reward:
            trainer.iterate(2, mine)
        return {
            "values": values,
            "of reward": str(of_reward.value),
            "message": str(caught.value),
            "of rollout": str(of_rollout.value),
            "counts": counts_on_this_rank(),
        }


@pytest.fixture(scope="module")
def both():
    return run_ranks(two_ranks, 2, start_group=False)


def test_token_counts_are_over_both_ranks(both):
    # Rank 0 takes rows (2, 0), (3, 1) and (0, 1), (2, 3); rank 1 (3, 1), (2, 0) and (2, 3), (0, 1).
    expected = [[4 + 3 + 5 + 5, 2 + 1 + 1 + 1], [3 + 1 + 1 + 5, 4 + 2 + 1 + 5]]
    assert [answer["counts"] for answer in both] == [expected, expected]


def test_two_ranks_stop_together_and_log_the_same(both):
    first, second = both
    for name, value in first["values"].items():
        if not name.startswith("time/"):
            assert value == second["values"][name], name
    assert first["values"]["value/learning_rate"] == pytest.approx(1e-2)
    for answer in (first, second):
        # Both name the rank that has it: rank 0 is the one that prints.
        assert "the value loss is nan on rank 1 at step 1" in answer["message"]
        assert answer["of rollout"] == "no finite probability"
        assert answer["of reward"] == "reward rule: gave 3 scores for 4 responses"


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout_batch_size": 10}, "rollout_batch_size 10 is not a multiple"),
        ({"gamma": 1.1}, "gamma .1.1. and lam"),
        ({"steps": 0}, "steps is 0"),
        ({"ppo_epochs": 0}, "ppo_epochs is 0"),
        ({"kl_target": 1.0, "kl_horizon": 1.0}, "kl_horizon 1.0 is below"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        replace(SETTINGS, **changes)


def test_a_truncated_response_is_worth_minus_the_clip_by_default():
    assert PPOArguments(score_clip=4.0).no_end_score == -4.0
    assert PPOArguments(score_clip=4.0, no_end_score=0.0).no_end_score == 0.0
