"""Log-probabilities, entropies and positions, against loops."""

import math

import pytest
import torch

from common.models.logprobs import entropy, position_ids, token_logprobs


def test_position_ids_count_real_tokens_only():
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1, 2, 2], [0, 1, 2, 2, 2, 2]]


def test_token_logprobs_and_entropy_against_loops():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 5, generator=generator) * 4
    tokens = torch.randint(0, 5, (2, 3), generator=generator)
    found, spread = token_logprobs(logits, tokens, 0.7), entropy(logits, 0.7)
    for b in range(2):
        for t in range(3):
            weights = [math.exp(float(x) / 0.7) for x in logits[b, t].double()]
            p = [w / sum(weights) for w in weights]
            assert float(found[b, t]) == pytest.approx(math.log(p[int(tokens[b, t])]), abs=1e-5)
            assert float(spread[b, t]) == pytest.approx(-sum(q * math.log(q) for q in p), abs=1e-5)
