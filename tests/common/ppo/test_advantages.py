"""GAE and advantage normalization against their definitions, written out in plain float64.

Expectations come from the paper (§3.3.1, §3.3.4) and from DESIGN.md: V after the last action is 0.
"""

import math
import random
from itertools import product

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

from common.ppo.advantages import generalized_advantages, normalize_advantages
from tests.ranks import run_ranks

WIDTH = 9


def ragged_batch(seed: int, rows: int = 8) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """Lengths (always with 0, 1 and the full width) and two random `[rows, WIDTH]` tensors."""
    draw = random.Random(seed)
    lengths = [0, 1, WIDTH] + [draw.randint(0, WIDTH) for _ in range(rows - 3)]
    draw.shuffle(lengths)
    noise = torch.Generator().manual_seed(seed)
    return (
        lengths,
        torch.randn(rows, WIDTH, generator=noise),
        torch.randn(rows, WIDTH, generator=noise),
    )


def mask_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([[t < n for t in range(WIDTH)] for n in lengths])


def gae_by_double_sum(rewards, values, lengths, gamma, lam) -> list[list[float]]:
    """A_t = Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ·V_{t+1} − V_t; ends at the row's last action."""
    rewards, values = rewards.double().tolist(), values.double().tolist()
    result = []
    for r, v, n in zip(rewards, values, lengths, strict=True):
        row = [0.0] * WIDTH
        for t in range(n):
            for i in range(t, n):
                next_value = v[i + 1] if i + 1 < n else 0.0
                row[t] += (gamma * lam) ** (i - t) * (r[i] + gamma * next_value - v[i])
        result.append(row)
    return result


def as_float64(rows: list) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def check(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.dtype == torch.float32
    assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("gamma", "lam"), [*product((0.0, 0.5, 0.95, 1.0), (0.0, 0.5, 0.95, 1.0)), (0.95, 0.9)]
)
def test_gae_is_its_double_sum(gamma, lam):
    for seed in range(5):
        lengths, rewards, values = ragged_batch(seed)
        advantages, returns = generalized_advantages(rewards, values, mask_of(lengths), gamma, lam)
        expected = as_float64(gae_by_double_sum(rewards, values, lengths, gamma, lam))
        check(advantages, expected)
        kept = values.double() * mask_of(lengths)
        check(returns, expected + kept)
        assert not advantages[~mask_of(lengths)].any() and not returns[~mask_of(lengths)].any()


def test_gae_of_three_tokens_by_hand():
    # δ = (1 + .5·4 − 2, 0 + .5·6 − 4, 8 + 0 − 6) = (1, −1, 2); γλ = 1/4.
    rewards = torch.tensor([[1.0, 0.0, 8.0, 99.0]])
    values = torch.tensor([[2.0, 4.0, 6.0, 99.0]])
    mask = torch.tensor([[True, True, True, False]])
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[1 - 1 / 4 + 2 / 16, -1 + 2 / 4, 2.0, 0.0]]
    assert returns.tolist() == [[2.875, 3.5, 8.0, 0.0]]


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_lambda_one_gives_discounted_reward_sums_as_returns(gamma):
    """Whatever the critic says: the values must cancel."""
    lengths, rewards, values = ragged_batch(seed=11)
    _, returns = generalized_advantages(rewards, 3 * values, mask_of(lengths), gamma, lam=1.0)
    for row, n in enumerate(lengths):
        for t in range(n):
            total = math.fsum(gamma ** (i - t) * rewards[row, i].item() for i in range(t, n))
            assert returns[row, t].item() == pytest.approx(total, rel=1e-5, abs=3e-6)


def test_terminal_score_is_every_tokens_return_at_gamma_one_lambda_one():
    lengths, _, values = ragged_batch(seed=12)
    rewards = torch.zeros(len(lengths), WIDTH)
    for row, n in enumerate(lengths):
        if n:
            rewards[row, n - 1] = row - 2.5
    _, returns = generalized_advantages(rewards, values, mask_of(lengths), gamma=1.0, lam=1.0)
    for row, n in enumerate(lengths):
        assert returns[row, :n].tolist() == pytest.approx([row - 2.5] * n, rel=1e-5)


def test_lambda_zero_is_the_one_step_td_error():
    lengths, rewards, values = ragged_batch(seed=13)
    advantages, _ = generalized_advantages(rewards, values, mask_of(lengths), gamma=0.9, lam=0.0)
    for row, n in enumerate(lengths):
        for t in range(n):
            ahead = values[row, t + 1].item() if t < n - 1 else 0.0
            td = rewards[row, t].item() + 0.9 * ahead - values[row, t].item()
            assert advantages[row, t].item() == pytest.approx(td, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("garbage", [1e4, math.inf, -math.inf, math.nan])
def test_masked_positions_do_not_matter_to_gae(garbage):
    lengths, rewards, values = ragged_batch(seed=14)
    mask = mask_of(lengths)
    clean = generalized_advantages(rewards, values, mask, 0.95, 0.9)
    dirty = generalized_advantages(
        rewards.masked_fill(~mask, garbage), values.masked_fill(~mask, garbage), mask, 0.95, 0.9
    )
    assert torch.equal(clean[0], dirty[0]) and torch.equal(clean[1], dirty[1])


def test_gae_leaves_its_arguments_alone_and_computes_in_float32():
    lengths, rewards, values = ragged_batch(seed=15)
    rewards, values = rewards.bfloat16(), values.bfloat16()
    before = rewards.clone(), values.clone()
    advantages, returns = generalized_advantages(rewards, values, mask_of(lengths), 0.95, 0.9)
    expected = as_float64(gae_by_double_sum(rewards, values, lengths, 0.95, 0.9))
    check(advantages, expected)
    check(returns, expected + values.double() * mask_of(lengths))
    assert torch.equal(rewards, before[0]) and torch.equal(values, before[1])


# Normalization


def normalized_by_loops(advantages, lengths) -> torch.Tensor:
    """(A − μ)/(σ + 1e-8) over the unmasked tokens; population deviation; sums free of rounding."""
    rows = advantages.double().tolist()
    kept = [x for row, n in zip(rows, lengths, strict=True) for x in row[:n]]
    mean = math.fsum(kept) / len(kept)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in kept) / len(kept))
    return as_float64(
        [
            [(x - mean) / (deviation + 1e-8) if t < n else 0.0 for t, x in enumerate(row)]
            for row, n in zip(rows, lengths, strict=True)
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_normalized_advantages_are_the_formula_over_unmasked_tokens(seed):
    lengths, advantages, _ = ragged_batch(seed)
    advantages = 3 * advantages + 7
    mask = mask_of(lengths)
    normalized = normalize_advantages(advantages, mask)
    check(normalized, normalized_by_loops(advantages, lengths))
    kept = normalized[mask].double()
    assert kept.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert math.sqrt((kept**2).mean().item()) == pytest.approx(1.0, rel=1e-6)
    assert not normalized[~mask].any()


def test_normalization_by_hand():
    # Kept: 1, 3, 5, 7; mean 4, population deviation √5 (the sample deviation would be √(20/3)).
    advantages = torch.tensor([[1.0, 3.0, 100.0], [5.0, 7.0, -100.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    root = math.sqrt(5)
    check(
        normalize_advantages(advantages, mask),
        as_float64([[-3 / root, -1 / root, 0.0], [1 / root, 3 / root, 0.0]]),
    )


def test_epsilon_is_added_to_the_deviation():
    """With σ = 1e-8, A − μ = ±1e-8 is divided by 2e-8; an ε under the root would give ±1e-4."""
    normalized = normalize_advantages(torch.tensor([[1e-8, -1e-8]]), torch.ones(1, 2).bool())
    assert normalized.tolist() == [[pytest.approx(0.5, rel=1e-5), pytest.approx(-0.5, rel=1e-5)]]


@pytest.mark.parametrize("offset", [1e4, -1e7])
def test_a_large_mean_does_not_cancel_the_deviation(offset):
    lengths, advantages, _ = ragged_batch(seed=21)
    advantages = (3 * advantages).round() + offset  # whole numbers: exact in float32 at this size
    check(
        normalize_advantages(advantages, mask_of(lengths)), normalized_by_loops(advantages, lengths)
    )


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
def test_constant_advantages_become_zeros(value):
    lengths, _, _ = ragged_batch(seed=22)
    mask = mask_of(lengths)
    advantages = torch.full(mask.shape, value).masked_fill(~mask, 5.0)
    assert torch.equal(normalize_advantages(advantages, mask), torch.zeros(mask.shape))


def test_one_token_and_no_token_become_zeros():
    advantages = torch.full((2, 3), 4.0)
    mask = torch.zeros(2, 3, dtype=torch.bool)
    assert torch.equal(normalize_advantages(advantages, mask), torch.zeros(2, 3))
    mask[1, 0] = True
    assert torch.equal(normalize_advantages(advantages, mask), torch.zeros(2, 3))


@pytest.mark.parametrize("garbage", [1e4, math.inf, -math.inf, math.nan])
def test_masked_positions_do_not_matter_to_normalization(garbage):
    lengths, advantages, _ = ragged_batch(seed=23)
    mask = mask_of(lengths)
    clean = normalize_advantages(advantages, mask)
    dirty = normalize_advantages(advantages.masked_fill(~mask, garbage), mask)
    assert torch.equal(clean, dirty)


def normalize_own_rows(
    advantages: torch.Tensor, mask: torch.Tensor, bounds: list[int]
) -> torch.Tensor:
    mine = slice(bounds[dist.get_rank()], bounds[dist.get_rank() + 1])
    return normalize_advantages(advantages[mine], mask[mine])


def normalize_by_ranks(cases: list[tuple]) -> list[torch.Tensor]:
    return [normalize_own_rows(*case) for case in cases]


def test_two_ranks_normalize_as_one_whole_batch():
    lengths, advantages, _ = ragged_batch(seed=24)
    advantages[:3] = 2 * advantages[:3] - 5  # each rank alone would find another mean and deviation
    mask = mask_of(lengths)
    silent = [0, 0, 0, *lengths[3:]]  # rank 0 has rows, but no token in them
    cases = [
        (advantages, mask, [0, 3, 8]),
        (advantages, mask_of(silent), [0, 3, 8]),
        (advantages, mask, [0, 8, 8]),  # rank 1 has no row at all
        (torch.full_like(advantages, 0.1), mask, [0, 3, 8]),
    ]
    for case, first, second in zip(cases, *run_ranks(normalize_by_ranks, 2, cases), strict=True):
        together = torch.cat([first, second])
        assert_close(together, normalize_advantages(*case[:2]), rtol=1e-6, atol=1e-7)
    first, second = (results[0] for results in run_ranks(normalize_by_ranks, 2, cases[:1]))
    check(torch.cat([first, second]), normalized_by_loops(advantages, lengths))
