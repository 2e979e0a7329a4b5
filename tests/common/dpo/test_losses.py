"""DPO's loss (Rafailov et al. 2023, eq. 7) against loops in plain float64."""

import math
import random

import pytest
import torch
from torch.testing import assert_close

from common.dpo.losses import dpo_loss, implicit_rewards

BETA = 0.3


def draws(seed, pairs=40):
    """log π and log π_ref of chosen and rejected responses, and their lengths."""
    draw = random.Random(seed)
    columns = [[-draw.uniform(0.1, 40.0) for _ in range(pairs)] for _ in range(4)]
    lengths = [[draw.randint(1, 30) for _ in range(pairs)] for _ in range(2)]
    return columns, lengths


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_are_equation_7(seed, by_length, smoothing):
    (new_w, new_l, ref_w, ref_l), (tokens_w, tokens_l) = draws(seed)
    losses, slopes_w, slopes_l = [], [], []
    for i in range(len(new_w)):
        scale_w = BETA / (tokens_w[i] if by_length else 1)
        scale_l = BETA / (tokens_l[i] if by_length else 1)
        gap = scale_w * (new_w[i] - ref_w[i]) - scale_l * (new_l[i] - ref_l[i])
        losses.append(
            -(1 - smoothing) * math.log(sigmoid(gap)) - smoothing * math.log(sigmoid(-gap))
        )
        # The paper's gradient (§4): the weight is how wrong the implicit rewards are.
        pull = (1 - smoothing) * sigmoid(-gap) - smoothing * sigmoid(gap)
        slopes_w.append(-scale_w * pull)
        slopes_l.append(scale_l * pull)
    chosen, rejected = (torch.tensor(x, requires_grad=True) for x in (new_w, new_l))
    lengths = [torch.tensor(x) if by_length else None for x in (tokens_w, tokens_l)]
    loss = dpo_loss(
        implicit_rewards(chosen, torch.tensor(ref_w), BETA, lengths[0]),
        implicit_rewards(rejected, torch.tensor(ref_l), BETA, lengths[1]),
        smoothing,
    )
    assert loss.dtype == torch.float32
    assert_close(loss, torch.tensor(losses), rtol=1e-4, atol=1e-5)
    loss.sum().backward()
    assert_close(chosen.grad, torch.tensor(slopes_w), rtol=1e-4, atol=1e-5)
    assert_close(rejected.grad, torch.tensor(slopes_l), rtol=1e-4, atol=1e-5)


def test_losses_by_hand():
    loss = dpo_loss(torch.tensor([0.0, math.log(3.0), -1.0]), torch.tensor([0.0, 0.0, -1.0]))
    assert_close(loss, torch.tensor([0.6931472, 0.2876821, 0.6931472]))
    # One tenth of −log σ(−ln 3) = ln 4 instead.
    smoothed = dpo_loss(torch.tensor([math.log(3.0)]), torch.tensor([0.0]), 0.1)
    assert smoothed.item() == pytest.approx(0.9 * 0.2876821 + 0.1 * math.log(4.0))
    rewards = implicit_rewards(torch.tensor([-3.0]), torch.tensor([-5.0]), 0.1, torch.tensor([4]))
    assert rewards.item() == pytest.approx(0.05)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_rewards_give_finite_losses_and_gradients(size):
    chosen = torch.tensor([size, -size], requires_grad=True)
    right, wrong = dpo_loss(chosen, torch.zeros(2))
    assert right.item() == pytest.approx(0.0, abs=1e-30)
    assert wrong.item() == pytest.approx(size, rel=1e-3)
    (right + wrong).backward()
    assert chosen.grad.tolist() == pytest.approx([0.0, -1.0], abs=1e-30)


def test_conservative_dpo_wants_a_finite_margin():
    """Its least loss lies where σ(margin) = 1 − ε; without smoothing there is none."""
    margins = torch.linspace(-6.0, 6.0, 1201)
    smoothed = dpo_loss(margins, torch.zeros_like(margins), 0.1)
    best = margins[smoothed.argmin()].item()
    assert sigmoid(best) == pytest.approx(0.9, abs=1e-3)
    plain = dpo_loss(margins, torch.zeros_like(margins))
    assert (plain.diff() < 0).all()
