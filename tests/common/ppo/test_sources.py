"""Several sources of rewards: how each is scaled, and how they add up."""

import math

import pytest
import torch

from common.data.template import Template
from common.errors import UserError
from common.ppo.rewards import clipped_scores, weighted_scores
from common.ppo.running import RunningMoments
from common.ppo.sources import RewardSourceArguments, source_of, text_scorers
from common.reward.callers import Endpoint, TextScorer
from common.reward.places import RewardPlace, parse_rewards
from common.reward.scoring import RewardScorer
from tests.models import byte_tokenizer


@pytest.fixture(scope="module")
def template():
    return Template(byte_tokenizer())


def test_the_sum_is_a_loop():
    draw = torch.Generator().manual_seed(0)
    raw = [torch.randn(16, generator=draw) * 10 + shift for shift in (0.0, 50.0, -3.0)]
    means, stds, weights = [1.0, 48.0, -3.0], [8.0, 12.0, 0.5], [1.0, 0.25, -0.1]
    ended = torch.rand(16, generator=draw) > 0.3
    expected = []
    for i in range(16):
        total = 0.0
        for x, mean, std, weight in zip(raw, means, stds, weights, strict=True):
            total += weight * (x[i].item() - mean) / std
        expected.append(max(-2.0, min(2.0, total)) if ended[i] else -7.0)
    assert {-2.0, 2.0, -7.0} < set(expected), "both clips and a truncation must occur"
    found = clipped_scores(weighted_scores(raw, means, stds, weights), 2.0, ended, -7.0)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_one_source_of_weight_one_is_the_plain_formula_bit_for_bit():
    raw = torch.randn(1000, generator=torch.Generator().manual_seed(1)) * 7
    assert torch.equal(weighted_scores([raw], [0.3], [1.7], [1.0]), (raw.float() - 0.3) / 1.7)


def test_a_source_is_scaled_by_what_is_given_or_a_models_own_or_as_it_goes(template):
    model = RewardScorer(torch.nn.Linear(1, 1), template, template, mean=0.5, std=2.0)
    rule = TextScorer("rule", lambda p, r: [0.0] * len(r), template)
    given = RewardPlace("x", weight=3.0, mean=1.0, std=4.0, name="x")
    plain = RewardPlace("x", name="x")
    for scorer in (model, rule):
        for running in (False, True):
            scale = source_of(given, scorer, running=running).scale
            assert (scale.mean, scale.std, scale.weight, scale.moments) == (1.0, 4.0, 3.0, None)
    scale = source_of(plain, model, running=False).scale
    assert (scale.mean, scale.std, scale.weight, scale.moments) == (0.5, 2.0, 1.0, None)
    assert scale.of_rollout(torch.tensor([9.0])) == (0.5, 2.0)
    assert isinstance(source_of(plain, model, running=True).scale.moments, RunningMoments)
    scale = source_of(plain, rule, running=False).scale
    seen = [1.0, 2.0, 6.0, -4.0]
    for part in (seen[:3], seen[3:]):
        mean, std = scale.of_rollout(torch.tensor(part))
    assert mean == pytest.approx(1.25)
    assert std == pytest.approx(math.sqrt(sum((x - 1.25) ** 2 for x in seen) / 4))


def test_a_model_that_does_not_say_how_its_scores_are_spread_is_scaled_as_it_goes(template):
    model = RewardScorer(torch.nn.Linear(1, 1), template, template, mean=None, std=None)
    place = RewardPlace("hub/reward", weight=0.5, name="foreign")
    with pytest.warns(UserWarning, match="foreign: hub/reward does not say .*all rollouts so far"):
        scale = source_of(place, model, running=False).scale
    seen = [15.0, 20.0, 25.0]
    mean, std = scale.of_rollout(torch.tensor(seen))
    assert mean == pytest.approx(20.0) and std == pytest.approx(math.sqrt(50 / 3))
    scores = weighted_scores([torch.tensor(seen)], [mean], [std], [scale.weight])
    assert len(set(clipped_scores(scores, 3.0, torch.ones(3).bool(), -3.0).tolist())) == 3
    given = RewardPlace("hub/reward", mean=18.0, std=4.0, name="foreign")
    assert source_of(given, model, running=False).scale.moments is None


def test_functions_and_endpoints_are_made_ready(template, tmp_path):
    file = tmp_path / "rules.py"
    file.write_text("def short(prompts, responses):\n    return [-len(r) for r in responses]\n")
    given = ["models/reward", f"python:{file}:short", "http://127.0.0.1:1/score"]
    settings = RewardSourceArguments(reward=given, reward_timeout=2.0, reward_retries=7)
    found = text_scorers(parse_rewards(given, default=""), settings, template)
    assert list(found) == ["short", "127.0.0.1"]
    assert found["short"].function([""], ["abc"]) == [-3]
    endpoint = found["127.0.0.1"].function
    assert isinstance(endpoint, Endpoint)
    assert (endpoint.url, endpoint.timeout, endpoint.retries) == (given[2], 2.0, 7)


@pytest.mark.parametrize("changes", [{"reward_timeout": 0.0}, {"reward_retries": -1}])
def test_settings_that_cannot_work_are_refused(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        RewardSourceArguments(**changes)
