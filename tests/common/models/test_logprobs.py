"""Log-probabilities, entropies and positions, against loops."""

import math

import pytest
import torch

from common.models.logprobs import logprobs_and_entropy, position_ids, token_logprobs


def test_position_ids_count_real_tokens_only():
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1, 2, 2], [0, 1, 2, 2, 2, 2]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_entropy_against_loops(temperature):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 5, generator=generator) * 4
    tokens = torch.randint(0, 5, (6,), generator=generator)
    alone = token_logprobs(logits.view(2, 3, 5), tokens.view(2, 3), temperature)
    found, spread = logprobs_and_entropy(logits, tokens, temperature)
    for t in range(6):
        weights = [math.exp(float(x) / temperature) for x in logits[t].double()]
        p = [w / sum(weights) for w in weights]
        expected = pytest.approx(math.log(p[int(tokens[t])]), abs=1e-5)
        assert float(alone.flatten()[t]) == expected and float(found[t]) == expected
        assert float(spread[t]) == pytest.approx(-sum(q * math.log(q) for q in p), abs=1e-5)


def test_only_the_logprob_has_a_gradient():
    """d log p(k) / d z_j = (1[j = k] − p_j) / temperature."""
    logits = torch.tensor([[0.5, -1.0, 2.0]], requires_grad=True)
    logprob, spread = logprobs_and_entropy(logits, torch.tensor([1]), 0.5)
    assert not spread.requires_grad
    logprob.sum().backward()
    weights = [math.exp(x / 0.5) for x in (0.5, -1.0, 2.0)]
    expected = [((j == 1) - w / sum(weights)) / 0.5 for j, w in enumerate(weights)]
    assert logits.grad[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_entropys_gradient_by_hand():
    """d H / d z_j = −p_j · (log p_j + H) / temperature."""
    logits = torch.tensor([[0.5, -1.0, 2.0]], requires_grad=True)
    _, spread = logprobs_and_entropy(logits, torch.tensor([1]), 0.5, gradient=True)
    spread.sum().backward()
    weights = [math.exp(x / 0.5) for x in (0.5, -1.0, 2.0)]
    p = [w / sum(weights) for w in weights]
    entropy = -sum(q * math.log(q) for q in p)
    expected = [-q * (math.log(q) + entropy) / 0.5 for q in p]
    assert logits.grad[0].tolist() == pytest.approx(expected, abs=1e-5)
