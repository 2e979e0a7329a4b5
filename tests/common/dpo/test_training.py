"""DPO's objective on real models: whole responses, the reference, padding, and where it leads."""

import copy
import math

import numpy as np
import pytest
import torch

from common.config.arguments import LoraArguments
from common.data.encoding import Comparison
from common.data.records import Message, Pair
from common.dpo.training import DPOArguments, DPOObjective, check_start
from common.errors import UserError
from common.models.lora import add_adapters
from common.models.policy import PolicyModel
from common.training.batching import FILLER
from tests.common.ppo.small import small_actor
from tests.common.training.plain import comparisons, dpo_mean, draws, gradients_of, logprobs_of
from tests.models import tiny_causal_lm

EVERYTHING = np.arange(8)
FORMS = [
    DPOArguments(dpo_beta=0.3),
    DPOArguments(dpo_beta=2.0, label_smoothing=0.2, length_normalized=True),
]


def moved(model, seed=5, size=0.2):
    """Moves what is trainable: a policy that has left its reference."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * size)
    return model


def trained(kind="llama", settings=FORMS[0], pad_id=0):
    """An objective whose reference is a model's start, and the model, moved since."""
    policy = PolicyModel(tiny_causal_lm(kind))
    objective = DPOObjective(comparisons(), pad_id, settings)
    objective.score_reference(policy, batch_size=3)
    return objective, moved(policy).eval()  # GPT-2 as it is here has dropout


def test_the_reference_is_scored_without_a_graph(monkeypatch):
    """One would keep the activations of a whole evaluation batch."""
    found, original = [], DPOObjective.logprobs

    def noted(self, *args):
        found.append(original(self, *args))
        return found[-1]

    monkeypatch.setattr(DPOObjective, "logprobs", noted)
    objective, policy = trained()
    assert len(found) > 1 and not any(scores.requires_grad for scores in found)
    objective.loss(policy, EVERYTHING)
    assert found[-1].requires_grad


# The loss.


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("gpt2", FORMS[0]), ("llama", FORMS[1])],
    ids=["gpt2, plain", "llama, smoothed, by length"],
)
def test_loss_and_gradient_are_those_of_loops_over_tokens(kind, settings):
    objective, policy = trained(kind, settings)
    reference = PolicyModel(tiny_causal_lm(kind)).double()
    loss, statistics = objective.loss(policy, EVERYTHING)
    pairs = sum(objective.weights)
    gradient = gradients_of(policy, loss / pairs)

    exact = copy.deepcopy(policy).double()
    table = [[float(sum(response_logprobs(reference, c, r))) for r in c.rows] for c in ALL]
    mean = dpo_mean(
        exact, table, settings.dpo_beta, settings.label_smoothing, settings.length_normalized
    )
    assert float(loss) / pairs == pytest.approx(float(mean), rel=1e-4)
    assert abs(float(mean) - math.log(2.0)) > 0.01
    expected = gradients_of(exact, mean)
    size = max(float(g.abs().max()) for g in expected.values())
    for name, whole in expected.items():
        assert float((gradient[name].double() - whole).abs().max()) < 1e-4 * size, name
    check_statistics(statistics, exact, table, settings)


ALL = comparisons()


@torch.no_grad()
def response_logprobs(model, comparison, row):
    """log π of each token of a response; one that has no prompt has none for its first."""
    return logprobs_of(model, row)[max(comparison.prompt_tokens, 1) - 1 :]


def check_statistics(statistics, exact, table, settings):
    right, margins, chosen, rejected, drift = 0.0, 0.0, 0.0, 0.0, 0.0
    for comparison, reference in zip(ALL, table, strict=True):
        shifts = [
            float(sum(response_logprobs(exact, comparison, row))) - reference[i]
            for i, row in enumerate(comparison.rows)
        ]
        tokens = [len(row) - comparison.prompt_tokens for row in comparison.rows]
        rewards = [
            settings.dpo_beta * s / (n if settings.length_normalized else 1)
            for s, n in zip(shifts, tokens, strict=True)
        ]
        for (i, j), pair in zip(comparison.pairs, comparison.records, strict=True):
            right += pair.weight * (rewards[i] > rewards[j])
            margins += pair.weight * (rewards[i] - rewards[j])
            chosen += pair.weight * rewards[i]
            rejected += pair.weight * rewards[j]
            drift -= pair.weight * (shifts[i] + shifts[j]) / 2
    found = [statistics[n].item() for n in STATISTICS]
    assert found == pytest.approx([right, margins, chosen, rejected, drift], rel=1e-3, abs=1e-3)
    assert not any(value.requires_grad for value in statistics.values())


STATISTICS = ("accuracy", "margin", "chosen_reward", "rejected_reward", "drift")


def test_what_stands_in_padding_changes_nothing():
    objective, policy = trained()
    losses = []
    for pad_id in (0, 2, 77):
        objective.pad_id = pad_id
        losses.append(float(objective.loss(policy, EVERYTHING)[0].detach()))
        # Alone there is no padding; the sum over examples is the same.
        alone = sum(float(objective.loss(policy, np.array([i]))[0].detach()) for i in range(8))
        assert alone == pytest.approx(losses[-1], rel=1e-5)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_fillers_count_nothing():
    objective, policy = trained()
    loss, statistics = objective.loss(policy, np.array([FILLER, 2, FILLER]))
    alone, same = objective.loss(policy, np.array([2]))
    assert float(loss.detach()) == pytest.approx(float(alone.detach()), rel=1e-5)
    for name in STATISTICS:
        assert float(statistics[name]) == pytest.approx(float(same[name]), rel=1e-4, abs=1e-6)


# The reference.


@pytest.mark.parametrize("settings", FORMS, ids=["plain", "smoothed, by length"])
def test_the_first_loss_is_ln_2(settings):
    policy = PolicyModel(tiny_causal_lm("llama"))
    objective = DPOObjective(comparisons(), 0, settings)
    objective.score_reference(policy, batch_size=3)
    loss, statistics = objective.loss(policy, EVERYTHING)
    assert float(loss.detach()) / sum(objective.weights) == pytest.approx(math.log(2.0), abs=1e-5)
    for name in STATISTICS[1:]:
        assert float(statistics[name]) == pytest.approx(0.0, abs=1e-3)
    assert policy.training  # as it was before training
    check_start(policy, objective, 4, limit=1e-4)


def test_a_policy_that_is_not_the_reference_is_noticed():
    objective, policy = trained()
    with pytest.raises(UserError, match=r"nats a token away from the reference's \(limit 0\.001\)"):
        check_start(policy, objective, 4, limit=1e-3)
    objective.reference[0][0] = math.nan
    with pytest.raises(UserError, match="log-probability is"):
        check_start(policy, objective, 4, limit=1e-3)


def test_under_lora_the_reference_is_the_model_with_its_adapters_off():
    base = tiny_causal_lm("llama")
    plain = PolicyModel(copy.deepcopy(base))
    settings = LoraArguments(lora_rank=4, lora_alpha=32.0, lora_dropout=0.5)
    torch.manual_seed(0)
    policy = PolicyModel(add_adapters(base, settings, "unused", ()))
    objective = DPOObjective(comparisons(), 0, FORMS[0])
    objective.score_reference(policy, batch_size=8)
    moved(policy, size=0.3).eval()
    with torch.no_grad():
        shifted = objective.logprobs(policy, EVERYTHING).tolist()
        with policy.model.disable_adapter():
            off = objective.logprobs(policy, EVERYTHING).tolist()
        alone = objective.logprobs(plain, EVERYTHING).tolist()
    reference = [x for row in objective.reference for x in row]
    assert reference == pytest.approx(off, abs=1e-4) and reference == pytest.approx(alone, abs=1e-4)
    assert max(abs(a - b) for a, b in zip(shifted, off, strict=True)) > 0.1


# Where it leads.


def test_the_optimum_is_the_reference_tilted_by_the_reward():
    """Preferences by Bradley and Terry with known rewards r lead to π ∝ π_ref · exp(r / β).

    (Eq. 4 of the paper, and what §5 proves of the loss's minimum.) Twenty labels a pair of three
    one-token responses, in just the shares that r = 0, ln 3, ln 9 stand for.
    """
    beta, rewards = 0.7, [0.0, math.log(3.0), math.log(9.0)]
    responses = [0, 2, 3]  # of a vocabulary of 4; pad and end are like any other token
    prompts = [[1, 3], [2, 3, 0]]
    labels = {(1, 0): 15, (0, 1): 5, (2, 0): 18, (0, 2): 2, (2, 1): 15, (1, 2): 5}
    pairs = [pair for pair, count in labels.items() for _ in range(count)]
    record = Pair((Message("user", "q"),), "a", "b", 1.0, "test:1")
    data = [
        Comparison([[*p, y] for y in responses], pairs, [record] * len(pairs), len(p))
        for p in prompts
    ]
    objective = DPOObjective(data, 0, DPOArguments(dpo_beta=beta))
    policy = PolicyModel(small_actor(4))
    objective.score_reference(policy, batch_size=2)

    def shares():
        with torch.no_grad():
            logprobs = objective.logprobs(policy, np.arange(2)).view(2, 3).double()
        return logprobs.softmax(dim=1)  # among the three, which is all that pairs tell

    reference = shares()
    optimum = reference * (torch.tensor(rewards).double() / beta).exp()
    optimum /= optimum.sum(dim=1, keepdim=True)
    adam = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(70):
        adam.zero_grad()
        (objective.loss(policy, np.arange(2))[0] / len(pairs) / 2).backward()
        adam.step()
    assert (0.5 * (reference - optimum).abs().sum(dim=1)).min() > 0.2
    assert (0.5 * (shares() - optimum).abs().sum(dim=1)).max() < 0.01


# Settings.


@pytest.mark.parametrize(
    ("setting", "value"), [("dpo_beta", 0.0), ("label_smoothing", 0.5), ("label_smoothing", -0.1)]
)
def test_bad_settings_are_refused(setting, value):
    with pytest.raises(UserError, match=f"{setting} is {value}"):
        DPOArguments(**{setting: value})


def test_the_examples_are_ragged():
    assert {c.prompt_tokens for c in ALL} == {0, 3, 6} and len({len(c.rows) for c in ALL}) > 2
    assert draws(2).integers(3, 259) >= 3
