"""Log-probabilities of responses: positions, padding, temperature, against loops."""

import math

import pytest
import torch

from common.models.logprobs import entropy, position_ids, score_responses, token_logprobs
from tests.models import tiny_causal_lm


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


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_each_token_is_scored_from_what_stands_before_it(kind):
    """Against one forward per token over the bare prefix: no cache, padding or slicing."""
    model = tiny_causal_lm(kind)
    prompt, response = [1, 9, 30, 77], [50, 60, 2]
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        scores = score_responses(model, ids, torch.ones_like(ids).bool(), 3, 0.8, with_entropy=True)
        for t, token in enumerate(response):
            logits = model(torch.tensor([prompt + response[:t]])).logits[0, -1].double() / 0.8
            expected = float(logits[token]) - math.log(sum(math.exp(x) for x in logits.tolist()))
            assert float(scores.logprobs[0, t]) == pytest.approx(expected, abs=1e-4)
    assert scores.logprobs.dtype == torch.float32


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("pad_id", [0, 2], ids=["pad", "pad=eos"])
def test_padding_changes_no_logprob(kind, pad_id):
    """Rotary models forgive wrong positions under left padding; GPT-2 does not."""
    model = tiny_causal_lm(kind)
    prompt, response = [1, 9, 30, 77, 8], [50, 60, 70, 2]
    bare = torch.tensor([prompt + response])
    with torch.no_grad():
        expected = score_responses(model, bare, torch.ones_like(bare).bool(), 4).logprobs[0]
        assert expected.std() > 0.1  # else the model could not tell right from wrong
        for left in range(0, 21):
            right = left % 3
            row = [pad_id] * left + prompt + response + [pad_id] * right
            mask = [False] * left + [True] * 9 + [False] * right
            found = score_responses(model, torch.tensor([row]), torch.tensor([mask]), 4 + right)
            assert torch.allclose(found.logprobs[0, :4], expected, atol=1e-5), left


def test_wrong_positions_would_show():
    """The guard of the test above: without position_ids GPT-2's left-padded numbers differ."""
    model = tiny_causal_lm("gpt2")
    row = torch.tensor([[0] * 7 + [1, 9, 30, 77, 8]])
    mask = (row != 0).long()
    with torch.no_grad():
        naive = model(row, attention_mask=mask, position_ids=torch.arange(12)[None]).logits[0, -1]
        right = model(row, attention_mask=mask, position_ids=position_ids(mask)).logits[0, -1]
    assert (naive - right).abs().max() > 1e-2
