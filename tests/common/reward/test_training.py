"""The pair objective on a real model: weights, margins, fillers, and what is encoded."""

import copy
import math

import numpy as np
import pytest
import torch

from common.config.arguments import ModelArguments
from common.errors import UserError
from common.models.scalar import load_scalar_model
from common.reward.training import PairObjective, RewardArguments
from common.training.batching import FILLER
from tests.common.training.plain import comparisons, outputs_of
from tests.models import save_tiny

EVERYTHING = np.arange(8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = str(save_tiny(tmp_path_factory.mktemp("m") / "gpt2", "gpt2"))
    return load_scalar_model(folder, "reward", ModelArguments(), new_head=True).eval()


def objective_of(share_prompts=False, **settings):
    return PairObjective(comparisons(), 0, RewardArguments(**settings), share_prompts=share_prompts)


def sums_by_hand(model, penalty, centring):
    """Sum of weighted logistic terms, of the weights, and of those in order; in float64."""
    exact = copy.deepcopy(model).double()
    total, weights, right = 0.0, 0.0, 0.0
    for comparison in comparisons():
        with torch.no_grad():
            scores = [float(outputs_of(exact, row)[-1]) for row in comparison.rows]
        for (i, j), pair in zip(comparison.pairs, comparison.records, strict=True):
            gap = scores[i] - scores[j] - (0.0 if pair.margin is None else pair.margin)
            term = math.log(1.0 + math.exp(-gap))
            term += penalty * (scores[i] ** 2 + scores[j] ** 2) / 2
            term += centring * (scores[i] + scores[j]) ** 2
            total += pair.weight * term
            weights += pair.weight
            right += pair.weight * (scores[i] > scores[j])
    return total, weights, right


@pytest.mark.parametrize("share_prompts", [False, True])
def test_the_weighted_logistic_loss_is_a_loop_over_pairs(model, share_prompts):
    settings = {"loss": "logistic", "score_penalty": 0.3, "center_rewards_coefficient": 0.2}
    objective = objective_of(share_prompts, **settings)
    total, weights, right = sums_by_hand(model, 0.3, 0.2)
    with torch.no_grad():
        loss, statistics = objective.loss(model, EVERYTHING)
    assert float(loss) == pytest.approx(total, rel=1e-5)
    assert float(statistics["accuracy"]) == pytest.approx(right, rel=1e-6)
    assert sum(objective.weights) == pytest.approx(weights)


@pytest.mark.parametrize("share_prompts", [False, True])
def test_a_filler_adds_nothing(model, share_prompts):
    objective = objective_of(share_prompts)
    with torch.no_grad():
        loss, statistics = objective.loss(model, np.array([3, 5]))
        padded, same = objective.loss(model, np.array([3, FILLER, 5, FILLER]))
        empty, _ = objective.loss(model, np.array([FILLER]))
    assert float(padded) == pytest.approx(float(loss), rel=1e-6)
    assert float(same["accuracy"]) == float(statistics["accuracy"])
    assert float(empty) == 0.0


def test_equal_scores_are_half_right_as_in_the_diagnostics():
    def level(ids, mask, positions=None):
        return torch.zeros(ids.shape)

    objective = objective_of()
    _, statistics = objective.loss(level, EVERYTHING)
    assert float(statistics["accuracy"]) == pytest.approx(0.5 * sum(objective.weights))


class Counting(torch.nn.Module):
    """Counts the real tokens of every forward."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.tokens = model, 0, 0

    def forward(self, ids, mask, positions=None):
        self.forwards += 1
        self.tokens += int((ids != 0).sum())  # 0 pads, and is no token of these rows
        return self.model(ids, mask, positions)


def test_every_response_is_encoded_once_and_a_shared_prompt_too(model):
    """Six pairs among four responses are twelve responses, if each pair were a row of its own."""
    everything = comparisons()
    rows = [len(row) for c in everything for row in c.rows]
    in_pairs = sum(len(c.rows[i]) + len(c.rows[j]) for c in everything for i, j in c.pairs)
    counted = Counting(model)
    with torch.no_grad():
        objective_of(share_prompts=False).loss(counted, EVERYTHING)
        assert (counted.forwards, counted.tokens) == (1, sum(rows))
        assert sum(rows) < 0.8 * in_pairs
        packed = Counting(model)
        objective_of(share_prompts=True).loss(packed, EVERYTHING)
    shared = sum(common_start(c.rows) * (len(c.rows) - 1) for c in everything)
    assert (packed.forwards, packed.tokens) == (1, sum(rows) - shared)
    assert shared > 0


def common_start(rows):
    return next(
        i for i in range(max(map(len, rows)) + 1) if len({tuple(r[: i + 1]) for r in rows}) > 1
    )


@pytest.mark.parametrize("name", ["margin", "score_penalty", "center_rewards_coefficient"])
def test_a_negative_setting_is_refused(name):
    with pytest.raises(UserError, match=name):
        RewardArguments(**{name: -0.1})
