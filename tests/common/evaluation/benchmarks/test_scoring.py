"""Likelihoods of continuations: against one sequence at a time, token by token."""

import pytest
import torch

from common.evaluation.benchmarks.scoring import score_continuations
from common.models.policy import PolicyModel
from tests.models import tiny_causal_lm

GROUPS = [
    [((1, 20, 30, 40), (50,)), ((1, 20, 30, 40), (60,)), ((1, 20, 30, 40), (50, 70, 80))],
    [((1, 90), (50, 51, 52)), ((1, 90), (50, 51, 60, 61, 62))],  # they begin alike, too
    [((5,), (6,))],
]


def by_definition(model, context, continuation, most):
    whole = (list(context) + list(continuation))[-(most + 1) :]
    total, greedy = 0.0, True
    for place in range(len(whole) - min(len(continuation), len(whole) - 1), len(whole)):
        with torch.no_grad():
            logits = model(torch.tensor([whole[:place]])).logits[0, -1].double()
        total += float(logits[whole[place]] - logits.exp().sum().log())
        greedy &= int(logits.argmax()) == whole[place]
    return total, greedy


def check(model, groups, most):
    found = score_continuations(model, groups, most)
    assert [len(group) for group in found] == [len(group) for group in groups]
    for group, likelihoods in zip(groups, found, strict=True):
        for (context, continuation), likelihood in zip(group, likelihoods, strict=True):
            total, greedy = by_definition(model, context, continuation, most)
            assert likelihood.logprob == pytest.approx(total, abs=1e-4)
            assert likelihood.greedy is greedy


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])  # qwen2: its rows are not packed
@pytest.mark.parametrize("most", [256, 4])
def test_equal_to_one_token_at_a_time(kind, most):
    check(PolicyModel(tiny_causal_lm(kind)).model, GROUPS, most)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_model_whose_head_is_not_ours(kind):
    check(tiny_causal_lm(kind), GROUPS, 256)


def test_a_long_context_has_no_logits_of_its_own():
    model, made = tiny_causal_lm("qwen2"), []
    model.lm_head.register_forward_hook(lambda head, given, out: made.append(tuple(out.shape[:2])))
    score_continuations(model, [[(tuple(range(1, 41)), (50, 60))], [((5,) * 30, (6,))]], 256)
    assert made == [(2, 3)]  # two rows, and the columns in which one of them is asked


def test_what_the_model_would_say_itself_is_greedy():
    model = tiny_causal_lm("llama")
    said = model.generate(torch.tensor([[1, 20, 30]]), max_new_tokens=3, do_sample=False)
    own = tuple(said[0, 3:].tolist())
    other = (*own[:-1], (own[-1] + 1) % 259)
    ((first, second),) = score_continuations(
        model, [[((1, 20, 30), own), ((1, 20, 30), other)]], 256
    )
    assert first.greedy and not second.greedy and first.logprob > second.logprob
