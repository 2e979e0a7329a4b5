"""The ranking losses of §3.2 against loops in plain float64."""

import math
import random

import pytest
import torch
from torch.testing import assert_close

from common.reward.losses import centring_loss, logistic_loss, margin_loss


def random_pairs(seed: int, pairs: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    draw = random.Random(seed)
    better = [draw.gauss(0.5, 2.0) for _ in range(pairs)]
    worse = [draw.gauss(0.0, 2.0) for _ in range(pairs)]
    return torch.tensor(better, requires_grad=True), torch.tensor(worse, requires_grad=True)


def check(actual: torch.Tensor, expected: list[float]) -> None:
    assert actual.dtype == torch.float32
    assert_close(actual.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_margin_loss_and_its_gradient_are_loops(seed, margin):
    better, worse = random_pairs(seed)
    losses, slopes = [], []
    for b, w in zip(better.tolist(), worse.tolist(), strict=True):
        losses.append(max(0.0, margin - b + w))
        slopes.append(1.0 if b - w < margin else 0.0)  # beyond the margin nothing is pulled
    assert 0.0 in slopes and 1.0 in slopes
    loss = margin_loss(better, worse, margin)
    check(loss, losses)
    loss.sum().backward()
    check(better.grad, [-slope for slope in slopes])
    check(worse.grad, slopes)


@pytest.mark.parametrize("seed", range(3))
def test_logistic_loss_and_its_gradient_are_loops(seed):
    better, worse = random_pairs(seed)
    losses, slopes = [], []
    for b, w in zip(better.tolist(), worse.tolist(), strict=True):
        right = 1 / (1 + math.exp(-(b - w)))
        losses.append(-math.log(right))
        slopes.append(1 - right)
    loss = logistic_loss(better, worse)
    check(loss, losses)
    loss.sum().backward()
    check(better.grad, [-slope for slope in slopes])
    check(worse.grad, slopes)


def test_losses_by_hand():
    better, worse = torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.tensor([0.0, 0.5, 0.0, 1.0])
    check(margin_loss(better, worse, 1.0), [0.0, 0.5, 1.0, 3.0])
    check(logistic_loss(torch.tensor([0.0, math.log(3)]), torch.zeros(2)), [0.6931472, 0.2876821])


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_scores_neither_overflow_nor_underflow_to_nan(size):
    for loss_of in (logistic_loss, lambda b, w: margin_loss(b, w, 1.0)):
        better = torch.tensor([size, -size], requires_grad=True)
        worse = torch.tensor([-size, size], requires_grad=True)
        right, wrong = loss_of(better, worse)
        assert right.item() == pytest.approx(0.0, abs=1e-30)
        assert wrong.item() == pytest.approx(2 * size, rel=0.01)
        (right + wrong).backward()
        assert better.grad.tolist() == pytest.approx([0.0, -1.0], abs=1e-30)
        assert worse.grad.tolist() == pytest.approx([0.0, 1.0], abs=1e-30)


def test_logistic_loss_keeps_its_precision_in_the_tail():
    """log(1 + e^−20) ≈ e^−20: the float32 sum 1 + e^−20 would be 1."""
    loss = logistic_loss(torch.tensor([20.0]), torch.tensor([0.0]))
    assert loss.item() == pytest.approx(math.exp(-20), rel=1e-3)


def test_only_the_difference_of_the_scores_counts():
    better, worse = (x.detach() for x in random_pairs(4))
    for loss_of in (logistic_loss, lambda b, w: margin_loss(b, w, 1.0)):
        assert_close(loss_of(better + 8, worse + 8), loss_of(better, worse), rtol=1e-4, atol=1e-5)


def test_bfloat16_scores_are_compared_in_float32():
    better, worse = torch.tensor([64.5]).bfloat16(), torch.tensor([64.0]).bfloat16()
    check(margin_loss(better, worse, 0.6), [0.1])  # 0.6 − 64.5 is not a bfloat16
    check(logistic_loss(better, torch.tensor([0.25]).bfloat16()), [math.log1p(math.exp(-64.25))])


def test_one_value_a_pair_and_none_for_none():
    better, worse = torch.randn(7), torch.randn(7)
    nothing = torch.zeros(0)
    assert margin_loss(better, worse, 1.0).shape == logistic_loss(better, worse).shape == (7,)
    assert margin_loss(nothing, nothing, 1.0).shape == (0,)
    assert logistic_loss(nothing, nothing).shape == (0,)


@pytest.mark.parametrize("seed", range(2))
def test_margins_of_the_pairs_own_are_loops(seed):
    better, worse = random_pairs(seed)
    draw = random.Random(seed + 10)
    margins = [draw.uniform(0.0, 3.0) for _ in range(50)]
    hinge, logistic = [], []
    for b, w, m in zip(better.tolist(), worse.tolist(), margins, strict=True):
        hinge.append(max(0.0, m - b + w))
        logistic.append(-math.log(1 / (1 + math.exp(-(b - w - m)))))
    check(margin_loss(better, worse, torch.tensor(margins)), hinge)
    check(logistic_loss(better, worse, torch.tensor(margins)), logistic)


def test_centring_is_a_loop_and_pulls_both_scores_alike():
    better, worse = random_pairs(3)
    check(
        centring_loss(better, worse),
        [(b + w) ** 2 for b, w in zip(better.tolist(), worse.tolist(), strict=True)],
    )
    centring_loss(better, worse).sum().backward()
    slopes = [2 * (b + w) for b, w in zip(better.tolist(), worse.tolist(), strict=True)]
    check(better.grad, slopes)
    check(worse.grad, slopes)
    assert centring_loss(torch.tensor([3.5]), torch.tensor([-3.5])).item() == 0.0
