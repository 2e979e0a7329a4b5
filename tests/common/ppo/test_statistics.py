"""The logged numbers of one PPO step on two ranks, against NumPy over all rows together."""

import math

import numpy as np
import pytest
import torch

from common.hybrid_engine.rollout import Rollout
from common.ppo.experience import Experience
from common.ppo.statistics import rollout_sums, rollout_values
from common.training.distributed import all_reduce_scalars, rank, world_size
from tests.ranks import run_ranks

LENGTHS = [[3, 1, 4, 2, 4], [1, 4, 2, 3, 3]]  # per rank
ENDED = [[True, True, False, True, False], [True, True, True, True, False]]
WIDTH = 4
PER_TOKEN = ("logprobs", "ref_logprobs", "entropy", "values", "rewards", "advantages", "returns")
UPDATES = {  # sums of the updates; policy and value ones over tokens of all epochs
    0: {"policy_loss": -3.0, "clipped": 4.0, "approx_kl": 0.5, "value_loss": 6.0},
    1: {"policy_loss": 1.0, "clipped": 2.0, "approx_kl": 0.25, "value_loss": 3.0},
}


SAMPLER_GAPS = {0: 0.25, 1: -0.5}


def experience(index: int) -> tuple[Experience, Rollout]:
    """Five rows of one rank: per-token fields are random where real, 0 in padding."""
    draw = np.random.default_rng([11, index])
    mask = torch.tensor([[t < n for t in range(WIDTH)] for n in LENGTHS[index]])
    numbers = {
        name: torch.tensor(draw.normal(1.0, 2.0, (5, WIDTH)), dtype=torch.float32)
        for name in PER_TOKEN
    }
    numbers = {name: x.masked_fill(~mask, 0.0) for name, x in numbers.items()}
    scores = torch.tensor(draw.normal(0.5, 1.0, 5), dtype=torch.float32)
    ids = torch.zeros(5, 2 + WIDTH, dtype=torch.long)
    attention = torch.cat([torch.ones(5, 2).bool(), mask], dim=1)
    per_row = {"raw_scores": {"reward": 3 * scores}, "scores": scores, "penalties": scores**2}
    found = Experience(ids, attention, mask, **per_row, **numbers)
    seen = found.logprobs + SAMPLER_GAPS[index]  # at padding too, where it must not count
    return found, Rollout(ids, attention, WIDTH, torch.tensor(ENDED[index]), seen)


def on_this_rank() -> dict[str, float]:
    """What the trainer does at the end of a step, with made-up updates."""
    found, rollout = experience(rank())
    share = 1.0 / world_size()
    updates = {
        **UPDATES[rank()],
        "value_clipped": 1.0,
        "updates": 4 * share,
        "update_tokens": 54 * share,
        "early_stops": 1.0 * share,
        "policy/grad_norm": 2.0 * share,
        "value/grad_norm": 6.0 * share,
        "policy/learning_rate": 1e-3 * share,
        "value/learning_rate": 2e-3 * share,
    }
    return rollout_values(all_reduce_scalars({**rollout_sums(found, rollout), **updates}))


@pytest.fixture(scope="module")
def values():
    first, second = run_ranks(on_this_rank, 2)
    assert first == second
    return first


def everything() -> dict[str, np.ndarray]:
    """Unmasked tokens, and rows, of both ranks in one array each, in float64."""
    both = [experience(i)[0] for i in range(2)]
    tokens = {
        name: np.concatenate([getattr(e, name)[e.mask].double().numpy() for e in both])
        for name in PER_TOKEN
    }
    return tokens | {
        name: np.concatenate([getattr(e, name).double().numpy() for e in both])
        for name in ("scores", "penalties")
    }


def test_scores_lengths_and_ends(values):
    x = everything()
    assert values["tokens"] == 27
    assert values["response/length"] == pytest.approx(27 / 10)
    assert values["response/eos_rate"] == pytest.approx(7 / 10)
    assert values["reward/score"] == pytest.approx(x["scores"].mean())
    assert values["reward/score_std"] == pytest.approx(x["scores"].std())
    assert values["reward/raw_score"] == pytest.approx(3 * x["scores"].mean())
    assert values["reward/penalty"] == pytest.approx(x["penalties"].mean())
    assert values["reward/total"] == pytest.approx(x["rewards"].sum() / 10)
    assert values["policy/entropy"] == pytest.approx(x["entropy"].mean())


def test_several_sources_are_told_apart():
    found, rollout = experience(0)
    found.raw_scores = {"a": torch.arange(5.0), "b": -torch.ones(5)}
    sums = {k: float(v) for k, v in rollout_sums(found, rollout).items()}
    assert (sums["raw_score/a"], sums["raw_score/b"]) == (10.0, -5.0)
    more = {"value_loss": 0.0, "value_clipped": 0.0, "early_stops": 0.0}
    more |= {"updates": 1.0, "update_tokens": 1.0}
    for name in ("policy", "value"):
        more |= {f"{name}/grad_norm": 0.0, f"{name}/learning_rate": 0.0}
    values = rollout_values(sums | more)
    assert (values["reward/raw_score/a"], values["reward/raw_score/b"]) == (2.0, -1.0)
    assert "reward/raw_score" not in values


def test_the_samplers_distance_is_absolute_and_per_token(values):
    first, second = sum(LENGTHS[0]), sum(LENGTHS[1])
    expected = (first * 0.25 + second * 0.5) / (first + second)
    assert values["rollout/logprob_gap"] == pytest.approx(expected, rel=1e-5)


def test_kl_per_token_and_per_sequence(values):
    x = everything()
    d = x["logprobs"] - x["ref_logprobs"]
    terms = {"k1": d, "k2": d**2 / 2, "k3": np.exp(-d) - 1 + d}
    for name, term in terms.items():
        assert values[f"kl/token_{name}"] == pytest.approx(term.sum() / 27, rel=1e-5)
        assert values[f"kl/sequence_{name}"] == pytest.approx(term.sum() / 10, rel=1e-5)


def test_explained_variance(values):
    x = everything()
    expected = 1 - np.var(x["returns"] - x["values"]) / np.var(x["returns"])
    assert abs(expected) > 0.05
    assert values["value/explained_variance"] == pytest.approx(expected, rel=1e-5)


def test_updates_divide_by_their_tokens_and_their_number(values):
    assert values["policy/loss"] == pytest.approx((-3 + 1) / 54)
    assert values["policy/clip_fraction"] == pytest.approx((4 + 2) / 54)
    assert values["policy/approx_kl"] == pytest.approx(0.75 / 54)
    assert values["value/loss"] == pytest.approx(9 / 54)
    assert values["value/clip_fraction"] == pytest.approx(2 / 54)
    assert values["policy/grad_norm"] == pytest.approx(2 / 4)
    assert values["value/grad_norm"] == pytest.approx(6 / 4)
    assert values["policy/learning_rate"] == pytest.approx(1e-3)
    assert values["value/learning_rate"] == pytest.approx(2e-3)
    assert values["policy/early_stops"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("returns", "predicted", "expected"),
    [
        ([1.0, 2.0, 4.0], [1.0, 2.0, 4.0], 1.0),  # a perfect critic
        ([1.0, 2.0, 4.0], [0.0, 1.0, 3.0], 1.0),  # a constant error explains all that varies
        ([1.0, 2.0, 4.0], [5.0, 5.0, 5.0], 0.0),  # a constant critic explains nothing
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], -3.0),  # residuals −2, 0, 2: four times the variance
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], 0.0),  # returns that do not vary
    ],
)
def test_explained_variance_by_hand(returns, predicted, expected):
    found, rollout = experience(0)
    found = found.rows(torch.tensor([0]))  # its response has three tokens
    found.returns = torch.tensor([returns])
    found.values = torch.tensor([predicted])
    rollout = Rollout(found.input_ids, found.attention_mask, 3, rollout.ended[:1], found.logprobs)
    sums = rollout_sums(found, rollout)
    sums |= {"updates": 0.0, "update_tokens": 0.0, "early_stops": 0.0}
    sums |= {"value_loss": 0.0, "value_clipped": 0.0}
    for name in ("policy", "value"):
        sums |= {f"{name}/grad_norm": 0.0, f"{name}/learning_rate": 0.0}
    values = rollout_values({k: float(v) for k, v in sums.items()})
    assert values["value/explained_variance"] == pytest.approx(expected, abs=1e-9)
    assert all(math.isfinite(v) for v in values.values())
    assert values["policy/loss"] == 0.0  # a critic's warm-up has no policy sums
