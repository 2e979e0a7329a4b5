"""From scores to token rewards: r_t = −β·k1_t + 1[t = T−1]·s, and the truncation penalty."""

import math
import random
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from common.ppo.rewards import (
    clipped_scores,
    repeated_share,
    score_penalties,
    token_rewards,
    weighted_scores,
)

WIDTH = 8
GARBAGE = [1e4, math.inf, -math.inf, math.nan]


def ragged_batch(seed: int, rows: int = 8) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """Lengths (always with 0, 1 and the full width), scores `[rows]` and k1 `[rows, WIDTH]`."""
    draw = random.Random(seed)
    lengths = [0, 1, WIDTH] + [draw.randint(0, WIDTH) for _ in range(rows - 3)]
    draw.shuffle(lengths)
    noise = torch.Generator().manual_seed(seed)
    return lengths, torch.randn(rows, generator=noise), torch.randn(rows, WIDTH, generator=noise)


def mask_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([[t < n for t in range(WIDTH)] for n in lengths])


@pytest.mark.parametrize("coefficient", [0.0, 0.05, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_token_rewards_are_a_loop(seed, coefficient):
    lengths, scores, kl = ragged_batch(seed)
    expected = torch.zeros(len(lengths), WIDTH, dtype=torch.float64)
    for row, n in enumerate(lengths):
        for t in range(n):
            expected[row, t] = -coefficient * kl[row, t].item()
            if t == n - 1:
                expected[row, t] += scores[row].item()
    rewards = token_rewards(scores, kl, coefficient, mask_of(lengths))
    assert rewards.dtype == torch.float32
    assert_close(rewards.double(), expected, rtol=1e-5, atol=1e-6)


def test_terminal_score_by_hand():
    """Ended by eos with padding after it, one token (only eos), truncated at the limit, empty."""
    eos = 2
    responses = [[7, 5, eos], [eos], [9, 9, 9, 9], []]
    mask = torch.tensor([[t < len(r) for t in range(4)] for r in responses])
    scores = torch.tensor([3.0, -1.0, -5.0, 4.0])
    kl = torch.tensor([[1.0, 2.0, 3.0, 50.0], [4.0, 50.0, 50.0, 50.0], [1.0] * 4, [50.0] * 4])
    assert token_rewards(scores, kl, 0.5, mask).tolist() == [
        [-0.5, -1.0, 1.5, 0.0],  # the end token has both the score and its own KL
        [-3.0, 0.0, 0.0, 0.0],
        [-0.5, -0.5, -0.5, -5.5],  # the truncated row's last token carries what replaced its score
        [0.0, 0.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_masked_positions_do_not_matter_to_token_rewards(garbage):
    lengths, scores, kl = ragged_batch(seed=5)
    mask = mask_of(lengths)
    clean = token_rewards(scores, kl, 0.1, mask)
    dirty_scores = scores.masked_fill(torch.tensor(lengths) == 0, garbage)  # rows without a token
    dirty = token_rewards(dirty_scores, kl.masked_fill(~mask, garbage), 0.1, mask)
    assert torch.equal(clean, dirty)
    assert not dirty[~mask].any()


def test_token_rewards_leave_their_arguments_alone():
    lengths, scores, kl = ragged_batch(seed=6)
    before = scores.clone(), kl.clone()
    token_rewards(scores, kl, 0.1, mask_of(lengths))
    assert torch.equal(scores, before[0]) and torch.equal(kl, before[1])


def test_expected_sum_of_rewards_is_the_kl_regularized_objective():
    """Over every response of one or two tokens, E_π[Σ_t r_t] = E_π[s] − β·KL(π ‖ π_ref)."""
    beta, vocabulary, eos = 0.3, 4, 0
    noise = torch.Generator().manual_seed(7)
    # [policy, previous token (the last one: none yet), token]
    logp = torch.randn(2, vocabulary + 1, vocabulary, generator=noise).double().log_softmax(-1)
    responses = [[eos]] + [list(pair) for pair in product(range(1, vocabulary), range(vocabulary))]
    scores = torch.randn(len(responses), generator=noise)
    kl = torch.full((len(responses), 2), math.nan)
    mask = torch.zeros(len(responses), 2, dtype=torch.bool)
    probabilities, expected = [], 0.0
    for i, response in enumerate(responses):
        log_pi = log_ref = 0.0
        previous = vocabulary
        for t, token in enumerate(response):
            policy, reference = logp[:, previous, token].tolist()
            kl[i, t], mask[i, t] = policy - reference, True
            log_pi, log_ref, previous = log_pi + policy, log_ref + reference, token
        probabilities.append(math.exp(log_pi))
        expected += math.exp(log_pi) * (scores[i].item() - beta * (log_pi - log_ref))
    assert math.fsum(probabilities) == pytest.approx(1.0)
    sums = token_rewards(scores, kl, beta, mask).sum(1).tolist()
    actual = math.fsum(p * x for p, x in zip(probabilities, sums, strict=True))
    assert actual == pytest.approx(expected, rel=1e-5)


# Scores


def normalized_scores(raw, mean, std, clip, ended, no_end_score):
    """Of one source, as the experience has them."""
    return clipped_scores(weighted_scores([raw], [mean], [std], [1.0]), clip, ended, no_end_score)


@pytest.mark.parametrize("seed", range(4))
def test_normalized_scores_are_a_loop(seed):
    draw = random.Random(seed)
    raw = [draw.uniform(-20, 30) for _ in range(64)]
    ended = [draw.random() < 0.6 for _ in raw]
    expected = []
    for score, has_end in zip(raw, ended, strict=True):
        deviations = (score - 4.0) / 2.5
        expected.append(max(-5.0, min(5.0, deviations)) if has_end else -3.5)
    assert {-5.0, 5.0, -3.5} < set(expected), "the draw must hold both clips and a truncation"
    scores = normalized_scores(torch.tensor(raw), 4.0, 2.5, 5.0, torch.tensor(ended), -3.5)
    assert scores.dtype == torch.float32 and scores.shape == (64,)
    assert_close(scores.double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-6)


def test_normalized_scores_by_hand():
    scores = torch.tensor([10.0, 12.0, 6.0, 30.0, -30.0, 30.0, -30.0])
    ended = torch.tensor([True, True, True, True, True, False, False])
    normalized = normalized_scores(
        scores, mean=10.0, std=4.0, clip=2.0, ended=ended, no_end_score=-2.0
    )
    assert normalized.tolist() == [0.0, 0.5, -1.0, 2.0, -2.0, -2.0, -2.0]


def test_the_truncation_penalty_replaces_the_score_and_is_not_clipped():
    ended = torch.tensor([True, False, False])
    for no_end_score in (-7.0, 0.0):
        normalized = normalized_scores(
            torch.tensor([1.0, 1.0, 99.0]), 0.0, 1.0, 5.0, ended, no_end_score
        )
        assert normalized.tolist() == [1.0, no_end_score, no_end_score]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_the_score_of_a_truncated_response_does_not_matter(garbage):
    scores = torch.tensor([0.5, garbage])
    normalized = normalized_scores(scores, 0.0, 1.0, 5.0, torch.tensor([True, False]), -5.0)
    assert normalized.tolist() == [0.5, -5.0]


def test_bfloat16_scores_are_normalized_in_float32():
    raw = torch.tensor([100.5, 101.0]).bfloat16()  # exact in bfloat16; their difference from the
    mean = 100.3  # mean is not, and 100.3 itself would be rounded to 100.5
    normalized = normalized_scores(raw, mean, 1.0, 5.0, torch.tensor([True, True]), -5.0)
    assert normalized.dtype == torch.float32
    assert normalized.tolist() == pytest.approx([0.2, 0.7], rel=1e-4)


def test_the_score_is_clipped_before_the_kl_is_subtracted():
    scores = normalized_scores(torch.tensor([-100.0]), 0.0, 1.0, 5.0, torch.tensor([True]), -5.0)
    rewards = token_rewards(scores, torch.tensor([[10.0]]), 0.1, torch.tensor([[True]]))
    assert rewards.tolist() == [[-6.0]]


# Penalties


def share_by_hand(ids, size):
    grams = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]
    repeats = sum(gram in grams[:i] for i, gram in enumerate(grams))
    return repeats / len(grams) if grams else 0.0


@pytest.mark.parametrize("size", [1, 2, 4, 20])
def test_repeated_n_grams_are_counted_by_hand(size):
    draw = random.Random(size)
    lengths = [0, 1, 2, 3, *(draw.randint(4, 16) for _ in range(12))]
    ids = torch.tensor([[draw.randint(3, 4) for _ in range(16)] for _ in lengths])
    mask = torch.tensor([[t < n for t in range(16)] for n in lengths])
    expected = [share_by_hand(row[:n].tolist(), size) for row, n in zip(ids, lengths, strict=True)]
    assert repeated_share(ids, mask, size).tolist() == pytest.approx(expected)
    assert size == 20 or max(expected) > 0.2


def test_penalties_are_for_length_and_repeats():
    ids = torch.tensor([[5, 6, 5, 6, 5], [5, 6, 7, 8, 9]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    found = score_penalties(ids, mask, per_token=0.1, for_repeats=2.0, size=2)
    # 56 65 56 65: two of four come again.
    assert found.tolist() == pytest.approx([0.5 + 1.0, 0.3])
    assert score_penalties(ids, mask, per_token=0.0, for_repeats=0.0, size=2).tolist() == [0, 0]
