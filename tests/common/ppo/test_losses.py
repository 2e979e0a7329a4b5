"""The clipped objectives against loops over tokens in plain float64 (§3.3.2, §3.3.4)."""

import math
import random

import pytest
import torch
from torch.testing import assert_close

from common.ppo.losses import policy_loss, value_loss

ROWS, WIDTH = 40, 10
GARBAGE = [1e4, -1e4, math.inf, -math.inf, math.nan]


def ragged_lengths(seed: int, rows: int = ROWS) -> list[int]:
    draw = random.Random(seed)
    lengths = [0, 1, WIDTH] + [draw.randint(0, WIDTH) for _ in range(rows - 3)]
    draw.shuffle(lengths)
    return lengths


def mask_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([[t < n for t in range(WIDTH)] for n in lengths])


def randoms(seed: int, count: int, rows: int = ROWS) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, WIDTH, generator=noise) for _ in range(count)]


def tokens(lengths: list[int], *tensors: torch.Tensor):
    """Each unmasked token's row and column, and the tensors' values there as Python floats."""
    for row, n in enumerate(lengths):
        for t in range(n):
            yield row, t, *(x[row, t].item() for x in tensors)


def policy_batch(seed: int) -> tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = ragged_lengths(seed)
    old, change, advantages = randoms(seed, 3)
    old = -old.abs() - 0.5
    return lengths, old + 0.5 * change, old, 2 * advantages


# Policy


@pytest.mark.parametrize("clip_range", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_policy_loss_clip_count_and_approx_kl_are_loops(seed, clip_range):
    lengths, logprobs, old, advantages = policy_batch(seed)
    loss, clipped, approx_kl = 0.0, 0, 0.0
    cases = set()
    for _, _, new_lp, old_lp, a in tokens(lengths, logprobs, old, advantages):
        ratio = math.exp(new_lp - old_lp)
        limited = min(max(ratio, 1 - clip_range), 1 + clip_range)
        loss -= min(ratio * a, limited * a)
        outwards = ratio > 1 + clip_range if a > 0 else ratio < 1 - clip_range
        clipped += outwards
        approx_kl += ratio - 1 - (new_lp - old_lp)
        side = (ratio > 1 + clip_range) - (ratio < 1 - clip_range)
        cases.add((a > 0, side))
    assert len(cases) == 6, "the draw must hold both signs of A on each side of the clip and inside"
    result = policy_loss(logprobs, old, advantages, mask_of(lengths), clip_range)
    assert result.loss.item() == pytest.approx(loss, rel=1e-5, abs=1e-5)
    assert result.clipped.item() == clipped
    assert result.approx_kl.item() == pytest.approx(approx_kl, rel=1e-5)
    for scalar in result:
        assert scalar.shape == () and scalar.dtype == torch.float32


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        # ε = 0.2; the gradient is with respect to log π: −A·ratio, or 0 beyond the clip.
        (1.5, 2.0, -2.4, 0.0, 1),  # already much likelier: no more to gain
        (1.5, -2.0, 3.0, 3.0, 0),  # likelier although bad: pulled back
        (0.5, 2.0, -1.0, -1.0, 0),  # unlikelier although good: pulled back
        (0.5, -2.0, 1.6, 0.0, 1),  # already much unlikelier
        (1.1, 2.0, -2.2, -2.2, 0),
        (0.9, -2.0, 1.8, 1.8, 0),
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.0, -2.0, 2.0, 2.0, 0),
        (1.5, 0.0, 0.0, 0.0, 0),
    ],
)
def test_policy_loss_of_one_token_by_hand(ratio, advantage, loss, gradient, clipped):
    logprobs = torch.tensor([[-1.0 + math.log(ratio)]], requires_grad=True)
    old, a = torch.tensor([[-1.0]]), torch.tensor([[advantage]])
    result = policy_loss(logprobs, old, a, torch.tensor([[True]]), clip_range=0.2)
    assert result.loss.item() == pytest.approx(loss, rel=1e-5, abs=1e-7)
    assert result.clipped.item() == clipped
    result.loss.backward()
    assert logprobs.grad.item() == pytest.approx(gradient, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_policy_gradient_is_zero_exactly_where_clipped(seed):
    lengths, logprobs, old, advantages = policy_batch(seed)
    logprobs.requires_grad_()
    policy_loss(logprobs, old, advantages, mask_of(lengths), clip_range=0.2).loss.backward()
    expected = torch.zeros(len(lengths), WIDTH, dtype=torch.float64)
    zeros = 0
    for row, t, new_lp, old_lp, a in tokens(lengths, logprobs, old, advantages):
        ratio = math.exp(new_lp - old_lp)
        if (a > 0 and ratio > 1.2) or (a < 0 and ratio < 0.8):
            zeros += 1
        else:
            expected[row, t] = -a * ratio
    assert zeros > 3
    assert_close(logprobs.grad.double(), expected, rtol=1e-5, atol=1e-6)


def test_policy_gradient_at_ratio_one_is_minus_advantage_times_grad_log_pi():
    """Before the first update PPO is REINFORCE: ∂/∂logits = −A·(one-hot − π), by the softmax."""
    lengths = ragged_lengths(5)
    (advantages,) = randoms(5, 1)
    noise = torch.Generator().manual_seed(6)
    logits = torch.randn(len(lengths), WIDTH, 4, generator=noise).requires_grad_()
    actions = torch.randint(4, (len(lengths), WIDTH), generator=noise)
    logprobs = logits.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    result = policy_loss(logprobs, logprobs.detach(), advantages, mask_of(lengths), 0.2)
    result.loss.backward()
    expected = torch.zeros(logits.shape, dtype=torch.float64)
    total = 0.0
    for row, t, a, action in tokens(lengths, advantages, actions):
        weights = [math.exp(x) for x in logits[row, t].tolist()]
        for token, weight in enumerate(weights):
            expected[row, t, token] = -a * ((token == action) - weight / sum(weights))
        total -= a
    assert_close(logits.grad.double(), expected, rtol=1e-5, atol=1e-6)
    assert result.loss.item() == pytest.approx(total, rel=1e-5)
    assert result.clipped.item() == 0 and result.approx_kl.item() == 0


@pytest.mark.parametrize("garbage", GARBAGE)
def test_masked_positions_do_not_matter_to_the_policy_loss(garbage):
    lengths, logprobs, old, advantages = policy_batch(7)
    mask = mask_of(lengths)

    def loss_and_gradient(*inputs):
        logprobs = inputs[0].clone().requires_grad_()
        result = policy_loss(logprobs, *inputs[1:], mask, 0.2)
        result.loss.backward()
        return *(x.detach() for x in result), logprobs.grad

    clean = loss_and_gradient(logprobs, old, advantages)
    # Each argument alone, and all together (where ∞ − ∞ arises).
    for dirty in ({0}, {1}, {2}, {0, 1, 2}):
        inputs = [
            x.masked_fill(~mask, garbage) if i in dirty else x
            for i, x in enumerate((logprobs, old, advantages))
        ]
        for a, b in zip(clean, loss_and_gradient(*inputs), strict=True):
            assert torch.equal(a, b)
    assert not clean[-1][~mask].any()


@pytest.mark.parametrize("log_ratio", [-1000.0, -100.0, 100.0, 1000.0])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_policy_loss_does_not_overflow(log_ratio, advantage):
    logprobs = torch.tensor([[log_ratio]], requires_grad=True)
    result = policy_loss(
        logprobs, torch.zeros(1, 1), torch.tensor([[advantage]]), torch.tensor([[True]]), 0.2
    )
    result.loss.backward()
    assert all(math.isfinite(x) for x in (*(s.item() for s in result), logprobs.grad.item()))


def test_policy_metrics_carry_no_gradient():
    lengths, logprobs, old, advantages = policy_batch(8)
    result = policy_loss(logprobs.requires_grad_(), old, advantages, mask_of(lengths), 0.2)
    assert result.loss.requires_grad
    assert not result.clipped.requires_grad and not result.approx_kl.requires_grad


@pytest.mark.parametrize("floor", [1.5, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_dual_clip_is_a_loop(seed, floor):
    lengths, logprobs, old, advantages = policy_batch(seed)
    logprobs = old + 4 * (logprobs - old)  # ratios beyond the floor
    loss, bound = 0.0, 0
    for _, _, new_lp, old_lp, a in tokens(lengths, logprobs, old, advantages):
        ratio = math.exp(new_lp - old_lp)
        term = min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
        if a < 0 and term < floor * a:
            term, bound = floor * a, bound + 1
        loss -= term
    found = policy_loss(logprobs, old, advantages, mask_of(lengths), 0.2, floor)
    assert bound > 3
    assert found.loss.item() == pytest.approx(loss, rel=1e-5)
    assert found.loss < policy_loss(logprobs, old, advantages, mask_of(lengths), 0.2).loss


def test_no_gradient_below_the_dual_clips_floor():
    logprobs = torch.tensor([[2.0, 0.1, 2.0]], requires_grad=True)
    advantages = torch.tensor([[-1.0, -1.0, 1.0]])  # e² = 7.4 is beyond 3
    policy_loss(
        logprobs, torch.zeros(1, 3), advantages, torch.ones(1, 3).bool(), 0.2, 3.0
    ).loss.backward()
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, math.exp(0.1), 0.0])


# Value


def value_batch(seed: int) -> tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = ragged_lengths(seed)
    old, change, target = randoms(seed, 3)
    return lengths, old + change, old, old + target


@pytest.mark.parametrize("clip_range", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_value_loss_gradient_and_clip_count_are_loops(seed, clip_range):
    lengths, values, old, returns = value_batch(seed)
    values.requires_grad_()
    loss, clipped, unclipped_outside = 0.0, 0, 0
    gradient = torch.zeros(len(lengths), WIDTH, dtype=torch.float64)
    for row, t, v, v_old, target in tokens(lengths, values, old, returns):
        limited = min(max(v, v_old - clip_range), v_old + clip_range)
        loss += 0.5 * max((v - target) ** 2, (limited - target) ** 2)
        if v != limited and (limited - target) ** 2 > (v - target) ** 2:
            clipped += 1  # the limited value does not move with v: no gradient
        else:
            gradient[row, t] = v - target
            unclipped_outside += v != limited
    assert clipped and unclipped_outside
    result = value_loss(values, old, returns, mask_of(lengths), clip_range)
    assert result.loss.item() == pytest.approx(loss, rel=1e-5)
    assert result.clipped.item() == clipped
    for scalar in result:
        assert scalar.shape == () and scalar.dtype == torch.float32
    result.loss.backward()
    assert_close(values.grad.double(), gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient", "clipped"),
    [
        # V_old = 1, ε_v = 0.5: V may count as 0.5 … 1.5.
        (1.25, 3.0, 0.5 * 1.75**2, -1.75, 0),  # inside
        (2.0, 3.0, 0.5 * 1.5**2, 0.0, 1),  # moved too far towards the target: held at 1.5
        (2.0, 0.0, 0.5 * 2.0**2, 2.0, 0),  # moved away from the target: pays in full
        (-1.0, -2.0, 0.5 * 2.5**2, 0.0, 1),  # the same below
        (-1.0, 2.0, 0.5 * 3.0**2, -3.0, 0),
        (1.0, 1.0, 0.0, 0.0, 0),
    ],
)
def test_value_loss_of_one_token_by_hand(value, target, loss, gradient, clipped):
    values = torch.tensor([[value]], requires_grad=True)
    old, returns = torch.tensor([[1.0]]), torch.tensor([[target]])
    result = value_loss(values, old, returns, torch.tensor([[True]]), clip_range=0.5)
    assert (result.loss.item(), result.clipped.item()) == (loss, clipped)
    result.loss.backward()
    assert values.grad.item() == gradient


def test_nothing_counts_as_clipped_inside_the_clip_range():
    """Not even by rounding: with values around 0, V_old + (V − V_old) is often not V in float32."""
    for seed in range(5):
        old, values, returns = randoms(seed, 3)
        old, values = 0.1 * old.tanh(), 0.1 * values.tanh()
        mask = torch.ones(old.shape, dtype=torch.bool)
        assert value_loss(values, old, returns, mask, clip_range=0.2).clipped.item() == 0


def test_before_the_first_update_the_value_loss_is_half_the_squared_error():
    lengths, _, old, returns = value_batch(5)
    result = value_loss(old, old, returns, mask_of(lengths), 0.2)
    plain = sum(0.5 * (v - r) ** 2 for _, _, v, r in tokens(lengths, old, returns))
    assert result.loss.item() == pytest.approx(plain, rel=1e-5)
    assert result.clipped.item() == 0


@pytest.mark.parametrize("garbage", GARBAGE)
def test_masked_positions_do_not_matter_to_the_value_loss(garbage):
    lengths, values, old, returns = value_batch(6)
    mask = mask_of(lengths)

    def loss_and_gradient(*inputs):
        values = inputs[0].clone().requires_grad_()
        result = value_loss(values, *inputs[1:], mask, 0.2)
        result.loss.backward()
        return *(x.detach() for x in result), values.grad

    clean = loss_and_gradient(values, old, returns)
    for dirty in ({0}, {1}, {2}, {0, 1, 2}):
        inputs = [
            x.masked_fill(~mask, garbage) if i in dirty else x
            for i, x in enumerate((values, old, returns))
        ]
        for a, b in zip(clean, loss_and_gradient(*inputs), strict=True):
            assert torch.equal(a, b)
    assert not clean[-1][~mask].any()


def test_value_loss_computes_in_float32_when_the_critic_is_bfloat16():
    lengths, values, old, returns = (
        x.bfloat16() if isinstance(x, torch.Tensor) else x for x in value_batch(7)
    )
    loss = 0.0
    for _, _, v, v_old, target in tokens(lengths, values, old, returns):
        limited = min(max(v, v_old - 0.2), v_old + 0.2)
        loss += 0.5 * max((v - target) ** 2, (limited - target) ** 2)
    result = value_loss(values, old, returns, mask_of(lengths), 0.2)
    assert result.loss.item() == pytest.approx(loss, rel=1e-5)


# Both


def test_losses_of_no_token_are_zero_with_zero_gradient():
    x = torch.ones(2, WIDTH, requires_grad=True)
    y, none = torch.zeros(2, WIDTH), torch.zeros(2, WIDTH, dtype=torch.bool)
    for result in (policy_loss(x, y, y + 1, none, 0.2), value_loss(x, y, y + 3, none, 0.2)):
        assert [scalar.item() for scalar in result] == [0.0] * len(result)
        result.loss.backward()
    assert not x.grad.any()
