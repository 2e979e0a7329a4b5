"""What a PPO iteration saves, and that this changes nothing: reused forwards, states sent away."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from common.config.arguments import OptimizerArguments, ZeroArguments
from common.models.policy import PolicyModel
from common.ppo.trainer import PPOTrainer
from common.training.average import WeightAverage
from common.training.distributed import broadcast_object, rank, world_size
from common.training.engine import (
    build_engine,
    build_frozen,
    gathered_parameters,
    optimizer_step,
    process_group,
)
from tests.common.ppo.small import (
    LONGEST,
    PROMPTS,
    SETTINGS,
    VOCABULARY,
    Reward,
    small_actor,
    small_trainer,
)
from tests.ranks import run_ranks, shard_everything

AT_ONCE = {"mini_batch_size": 8, "micro_batch_size": 8}
"""A rollout is one mini-batch of one micro-batch; `SETTINGS` have two, of two on one rank."""


def trainer_of(zero: str = "0", *, checkpointing: bool = False, **changes: Any) -> PPOTrainer:
    reference = None
    if zero == "3":
        reference = build_frozen(
            PolicyModel(small_actor(VOCABULARY)), zero=ZeroArguments("3"), dtype=torch.float32
        )
    return small_trainer(
        replace(SETTINGS, **changes),
        Reward(lambda prompt, response: float(len(response))),
        vocabulary=VOCABULARY,
        max_response_tokens=LONGEST,
        zero=ZeroArguments(zero),
        reference=reference,
        checkpointing=checkpointing,
    )


def weights(trainer: PPOTrainer) -> list[torch.Tensor]:
    models = (trainer.actor.module, trainer.critic.module)
    with gathered_parameters(models[0]), gathered_parameters(models[1]):
        return [p.detach().clone() for m in models for p in m.parameters()]


def after_three_steps(trainer: PPOTrainer) -> tuple[list[torch.Tensor], list[tuple[int, int]]]:
    """The weights, and how often actor and critic had run after each step."""
    calls = {"actor": 0, "critic": 0}

    def counted(name: str) -> None:
        def count(*_: object) -> None:
            calls[name] += 1

        getattr(trainer, name).module.register_forward_pre_hook(count)

    for name in calls:
        counted(name)
    forwards = []
    for step in (1, 2, 3):
        trainer.iterate(step, PROMPTS[rank() :: world_size()])
        forwards.append((calls["actor"], calls["critic"]))
    return weights(trainer), forwards


def reused(
    zero: str = "0", *, several: bool = False, checkpointing: bool = False, **settings: float
) -> dict[bool, Any]:
    """Three steps with scoring's forwards reused, and with none reused."""
    changes = settings if several else AT_ONCE | settings
    return {
        reuse: after_three_steps(
            trainer_of(zero, checkpointing=checkpointing, reuse_scoring=reuse, **changes)
        )
        for reuse in (True, False)
    }


def states(engine: Any) -> list[torch.Tensor]:
    """Moments and own fp32 weights, where DeepSpeed keeps them under each stage."""
    optimizer = engine.optimizer
    adam = optimizer.optimizer if hasattr(optimizer, "optimizer") else optimizer
    found = [t for state in adam.state.values() for t in state.values() if t.dim() > 0]
    for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
        found += getattr(optimizer, name, [])
    for parameter in engine.module.parameters():  # other views of the same, under ZeRO-2
        mapping = getattr(parameter, "_hp_mapping", None)
        if mapping is not None:
            found.append(mapping.hp_fragment)
            found += (mapping.optim_fragment or {}).values()
    return found


def held(tensors: list[torch.Tensor]) -> int:
    """Bytes of memory that the tensors' storages have."""
    storages = {t.untyped_storage() for t in tensors}
    return sum(s.nbytes() for s in storages)


def offloaded(zero: str = "0") -> dict[bool, Any]:
    """Three steps with and without offload; what was held when a phase began."""
    found = {}
    for offload in (True, False):
        trainer = trainer_of(zero, offload_idle=offload)
        seen: list[tuple[str, int, int]] = []

        def noted(phase: str, trainer: PPOTrainer = trainer, seen: list = seen) -> None:
            original = getattr(trainer, phase)

            def note(*args: object, **kwargs: object) -> object:
                optimizers = states(trainer.actor) + states(trainer.critic)
                shards = [getattr(p, "ds_tensor", p) for p in trainer.reference.parameters()]
                seen.append((phase, held(optimizers), held(shards)))
                return original(*args, **kwargs)

            setattr(trainer, phase, note)

        noted("generate")
        noted("update")
        found[offload] = (*after_three_steps(trainer), seen)
    return found


def averages() -> dict[str, Any]:
    with process_group():
        shard_everything()
        return {"averaged": averaged("3"), "small steps": small_steps()}


def averaged(zero: str) -> dict[str, Any]:
    """The average of a trainer's actor, and the actor's weights after each of its updates."""
    trainer = trainer_of(zero, ema_decay=0.8)
    model = trainer.actor.module

    def whole() -> list[torch.Tensor]:
        with gathered_parameters(model):
            return [p.detach().clone() for p in model.parameters()]

    seen = [whole()]
    update = trainer.average.update
    trainer.average.update = lambda: (seen.append(whole()), update())
    for step in (1, 2, 3):
        trainer.iterate(step, PROMPTS[rank() :: world_size()])
    state = trainer.states()["average"].state_dict()
    before = whole()
    with trainer.average.in_place():
        inside = whole()
    found = {"seen": seen, "state": state["weights"], "inside": inside, "before": before}
    found["after"] = whole()
    # Another trainer goes on with it; what its ranks hold comes to the same whole.
    other = trainer_of(zero, ema_decay=0.8)
    shared = broadcast_object(state)
    other.average.load_state_dict(shared)
    found["loaded"] = other.average.state_dict()["weights"]
    return found


def small_steps() -> dict[str, tuple[float, float]]:
    """Under bf16: the share of weights that a small step moved, and how far the average moved."""
    found = {}
    ids = torch.tensor([[1, 4, 5, 6, 3]])
    mask = torch.ones_like(ids).bool()
    for zero in ("0", "2", "3"):
        engine = build_engine(
            PolicyModel(small_actor(VOCABULARY)),
            zero=ZeroArguments(zero),
            dtype=torch.bfloat16,
            optimizer=OptimizerArguments(
                learning_rate=1e-6, batch_size=2, micro_batch_size=1, warmup_ratio=0.0
            ),
            total_steps=4,
        )
        average = WeightAverage(engine, 0.5)
        head = engine.module.inner.lm_head.weight

        def both(average: WeightAverage = average, head: Any = head, engine: Any = engine) -> Any:
            state = average.state_dict()["weights"]
            place = [p is head for p in engine.module.parameters()].index(True)
            with gathered_parameters(engine.module):
                return head.detach().clone(), broadcast_object(state)[place].clone()

        weights, averages = both()
        optimizer_step(engine, [lambda e=engine: -e(ids, mask, mask).logprobs.sum()], 8.0, "")
        average.update()
        weights_after, averages_after = both()
        found[zero] = (
            float((weights != weights_after).float().mean()),
            float((averages_after - averages).abs().max()),
        )
    return found


def on_one_rank() -> dict[str, Any]:
    with process_group():
        return {
            "reused": reused(),
            "several": reused(several=True),
            "checkpointing": reused(checkpointing=True),
            "entropy": reused(entropy_coefficient=0.3),
            "offloaded": {"0": offloaded()},
        }


def on_two_ranks() -> dict[str, Any]:
    with process_group():
        whole = reused("3")  # small weights stay whole
        shard_everything()
        return {
            "whole": whole,
            **{f"reused, {zero}": reused(zero) for zero in ("2", "3")},
            "several, 3": reused("3", several=True),
            "offloaded": {zero: offloaded(zero) for zero in ("2", "3")},
        }


@pytest.fixture(scope="module")
def one():
    return run_ranks(on_one_rank, 1, start_group=False)[0]


@pytest.fixture(scope="module")
def two():
    return run_ranks(on_two_ranks, 2, start_group=False)


def assert_equal_weights(found: dict[bool, Any], **tolerance: float) -> None:
    for a, b in zip(found[True][0], found[False][0], strict=True):
        torch.testing.assert_close(a, b, **(tolerance or {"rtol": 0.0, "atol": 0.0}))


def saved_forwards(found: dict[bool, Any]) -> list[tuple[int, int]]:
    both = zip(found[True][1], found[False][1], strict=True)
    return [(anew[0] - reuse[0], anew[1] - reuse[1]) for reuse, anew in both]


def test_the_first_update_goes_back_through_scorings_forward(one):
    """Where a rollout is one micro-batch, both ways see the same batches: equal to the last bit."""
    assert_equal_weights(one["reused"])
    assert saved_forwards(one["reused"]) == [(0, 1), (1, 2), (2, 3)]  # the actor waits a step


def test_of_several_micro_batches_the_first_is_reused(one):
    """Scoring's batches are then others than without, and differ by rounding."""
    assert_equal_weights(one["several"], rtol=1e-3, atol=1e-5)
    # Eight rows in one batch without; with, two rows and six: one forward more, one less.
    assert saved_forwards(one["several"]) == [(-1, 0), (-1, 0), (-1, 0)]


def test_the_entropy_bonus_goes_back_through_scorings_forward(one):
    assert_equal_weights(one["entropy"], rtol=1e-4, atol=1e-6)  # gradients add up in another order
    (with_bonus, _), (without, _) = one["entropy"][False], one["reused"][False]
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(with_bonus, without, strict=True))


def test_reuse_works_with_gradient_checkpointing(one):
    assert_equal_weights(one["checkpointing"])


@pytest.mark.parametrize("name", ["whole", "reused, 2", "reused, 3", "several, 3"])
def test_reuse_on_two_ranks(two, name):
    for answer in two:
        tolerance = {"rtol": 1e-3, "atol": 1e-5} if "several" in name else {}
        assert_equal_weights(answer[name], **tolerance)


def check_offload(found: dict[bool, Any]) -> None:
    assert_equal_weights(found)
    away, here = found[True][2], found[False][2]
    assert [phase for phase, *_ in away] == ["generate", "update"] * 3
    for (phase, moments, frozen), (_, all_moments, all_frozen) in zip(away, here, strict=True):
        assert frozen == 0 < all_frozen
        if phase == "update":  # nothing more than without offload, either
            assert moments == all_moments
    # Before the first update there are no moments, but perhaps fp32 weights.
    assert [moments for phase, moments, _ in away if phase == "generate"] == [0, 0, 0]
    assert all(moments > 0 for _, moments, _ in here[2:])


def test_what_is_idle_can_wait_in_the_hosts_memory(one):
    check_offload(one["offloaded"]["0"])


@pytest.mark.parametrize("zero", ["2", "3"])
def test_what_is_idle_can_wait_on_two_ranks(two, zero):
    for answer in two:
        check_offload(answer["offloaded"][zero])


@pytest.fixture(scope="module")
def of_averages():
    return run_ranks(averages, 2, start_group=False)


def test_the_actors_average_is_its_definition_under_zero_3(of_averages):
    """And is whole in a checkpoint, whatever each rank holds."""
    main, other = (answer["averaged"] for answer in of_averages)
    start, *seen = main["seen"]
    assert len(seen) == 8  # the critic's warm-up updates no actor: two steps of four updates
    expected = [w.double() for w in start]
    for weights in seen:
        expected = [0.8 * e + 0.2 * w for e, w in zip(expected, weights, strict=True)]
    for name in ("state", "inside", "loaded"):
        for a, b in zip(main[name], expected, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(main["state"], main["loaded"], strict=True))
    assert all(x is None for x in other["state"])
    for answer in (main, other):
        assert all(
            torch.equal(a, b) for a, b in zip(answer["before"], answer["after"], strict=True)
        )
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(main["state"], seen[-1], strict=True))


def test_steps_that_bf16_rounds_away_count_in_the_average(of_averages):
    for answer in of_averages:
        for zero, (share, moved) in answer["small steps"].items():
            assert share < 0.05, zero
            assert moved == pytest.approx(0.5e-6, rel=0.4), zero  # float32 rounds, too
