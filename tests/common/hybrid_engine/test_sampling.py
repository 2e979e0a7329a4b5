"""One draw a row, against the definition of each filter and penalty."""

import math

import numpy as np
import pytest
import torch

from common.config.arguments import SamplingArguments
from common.hybrid_engine.sampling import choose_tokens

LOGITS = [0.3, -1.2, 2.0, 0.3, -30.0, 1.1]


def kept_share(tokens, temperature):
    """Probabilities of softmax(LOGITS / temperature) over these tokens alone."""
    weights = [np.exp(LOGITS[t] / temperature) if t in tokens else 0.0 for t in range(6)]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, (0, 1, 2, 3, 4, 5)),
        ({"top_k": 2}, (2, 5)),
        ({"top_k": 1}, (2,)),
        ({"top_k": 99}, (0, 1, 2, 3, 4, 5)),
        ({"top_p": 0.5}, (2,)),  # it alone has 0.54
        ({"top_p": 0.6}, (2, 5)),  # the token that passes the limit stays
        ({"top_p": 0.01}, (2,)),
        ({"top_k": 2, "top_p": 0.99}, (2, 5)),
        ({"temperature": 0.6}, (0, 1, 2, 3, 4, 5)),
        ({"temperature": 2.5, "top_k": 4}, (0, 2, 3, 5)),
    ],
)
def test_each_token_is_drawn_for_its_share_of_the_unit_interval(changes, tokens):
    points = 20_000
    draws = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    sampling = SamplingArguments(**changes)
    found = choose_tokens(torch.tensor([LOGITS]).expand(points, -1), sampling, draws).tokens
    shares = torch.bincount(found, minlength=6).double() / points
    torch.testing.assert_close(
        shares,
        torch.tensor(kept_share(tokens, sampling.temperature), dtype=torch.float64),
        rtol=0,
        atol=2 / points,
    )


def drawn_shares(sampling, **settings):
    """How often each token is drawn when the draws cover the unit interval evenly."""
    points = 20_000
    draws = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    logits = torch.tensor([LOGITS]).expand(points, -1)
    settings = {k: v.expand(points, *v.shape[1:]) for k, v in settings.items()}
    choice = choose_tokens(logits, sampling, draws, eos_id=2, **settings)
    return torch.bincount(choice.tokens, minlength=6).double() / points


def test_repetition_penalty_makes_seen_tokens_less_likely():
    seen = torch.tensor([[True, True, False, False, False, True]])
    sampling = SamplingArguments(repetition_penalty=1.5, temperature=0.8)
    changed = [
        (x / 1.5 if x > 0 else x * 1.5) if s else x
        for x, s in zip(LOGITS, seen[0].tolist(), strict=True)
    ]
    weights = [math.exp(x / 0.8) for x in changed]
    expected = torch.tensor([w / sum(weights) for w in weights], dtype=torch.float64)
    found = drawn_shares(sampling, seen=seen)
    torch.testing.assert_close(found, expected, rtol=0, atol=2 / 20_000)


def test_a_barred_row_does_not_end():
    weights = [math.exp(x) if i != 2 else 0.0 for i, x in enumerate(LOGITS)]
    expected = torch.tensor([w / sum(weights) for w in weights], dtype=torch.float64)
    found = drawn_shares(SamplingArguments(), barred=torch.tensor([True]))
    torch.testing.assert_close(found, expected, rtol=0, atol=2 / 20_000)
    both = choose_tokens(
        torch.tensor([LOGITS, LOGITS]),
        SamplingArguments(),
        None,
        barred=torch.tensor([True, False]),
        eos_id=2,
    )
    assert both.tokens.tolist() == [5, 2]  # the end token is the likeliest


@pytest.mark.parametrize("changes", [{}, {"top_k": 2}, {"top_p": 0.6}, {"repetition_penalty": 3.0}])
def test_log_probabilities_are_those_before_filters_and_penalties(changes):
    sampling = SamplingArguments(temperature=0.7, **changes)
    draws = torch.tensor([0.05, 0.4, 0.6, 0.95], dtype=torch.float64)
    seen = torch.ones(4, 6, dtype=torch.bool) if "repetition_penalty" in changes else None
    choice = choose_tokens(torch.tensor([LOGITS] * 4), sampling, draws, seen=seen)
    total = math.log(sum(math.exp(x / 0.7) for x in LOGITS))
    expected = [LOGITS[t] / 0.7 - total for t in choice.tokens.tolist()]
    torch.testing.assert_close(choice.logprobs, torch.tensor(expected))


def test_nan_logits_give_a_nan_and_a_token_that_exists():
    logits = torch.tensor([LOGITS, [float("nan")] * 6])
    choice = choose_tokens(logits, SamplingArguments(), torch.tensor([0.5, 0.5]).double())
    assert 0 <= choice.tokens[1] < 6 and math.isnan(choice.logprobs[1])
    assert math.isfinite(choice.logprobs[0])
