"""Rollouts: layout, masks, seeds."""

import numpy as np
import pytest
import torch

from common.config.arguments import SamplingArguments
from common.hybrid_engine.generation import (
    CHECK_EVERY,
    choose_tokens,
    left_pad,
    response_mask,
    right_pad,
    sample_responses,
    uniform_draws,
)
from tests.models import tiny_causal_lm

PROMPTS = [[1, 20, 30, 40, 50], [1, 60], [1, 70, 80]]


def sample(model, **changes):
    settings = {
        "eos_id": 2,
        "pad_id": 0,
        "max_new_tokens": 6,
        "sampling": SamplingArguments(),
        "seed": 5,
    }
    return sample_responses(model, PROMPTS, **{**settings, **changes})


def test_mask_ends_with_the_first_end_token():
    tokens = torch.tensor([[5, 2, 0, 0], [5, 6, 7, 8], [2, 2, 2, 2], [0, 5, 2, 9]])
    mask, ended = response_mask(tokens, eos_id=2)
    assert mask.tolist() == [
        [True, True, False, False],
        [True, True, True, True],
        [True, False, False, False],
        [True, True, True, False],
    ]  # the sampled pad token before the end in the last row counts
    assert ended.tolist() == [True, False, True, True]


def test_padding_sides():
    ids, mask = left_pad([[1, 2], [3]], 0)
    assert ids.tolist() == [[1, 2], [0, 3]] and mask.tolist() == [[True, True], [False, True]]
    ids, mask = right_pad([[1, 2], [3]], 9)
    assert ids.tolist() == [[1, 2], [3, 9]] and mask.tolist() == [[True, True], [True, False]]


def alone(model, prompt, choose, limit=6):
    """One row without padding or cache: the whole prefix anew for every token.

    Args:
        choose: (logits of the next token, number of the step) -> token.
    """
    response: list[int] = []
    while len(response) < limit and (not response or response[-1] != 2):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, -1]
        response.append(choose(logits, len(response)))
    return response


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "mistral"])
def test_greedy_equals_a_loop_over_bare_prefixes(kind):
    model = tiny_causal_lm(kind)
    found = sample(model, greedy=True).response_ids()
    for prompt, response in zip(PROMPTS, found, strict=True):
        assert response == alone(model, prompt, lambda logits, _: int(logits.argmax()))


def often_ending(kind):
    """A model that gives the end token a good chance, so that rows end at many lengths."""
    model = tiny_causal_lm(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.7)
    forward = model.forward

    def forward_with_more_ends(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits[..., 2] += 3.0
        return outputs

    model.forward = forward_with_more_ends
    return model


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_sampling_equals_a_loop_over_bare_prefixes(kind):
    """Prompts given several times, and rows that end before, at and after a look at the ends."""
    model, limit = often_ending(kind), 3 * CHECK_EVERY
    prompts = [PROMPTS[i] for i in (0, 1, 1, 2, 0, 0, 1, 2, 2, 1)]
    found = sample_responses(
        model,
        prompts,
        eos_id=2,
        pad_id=0,
        max_new_tokens=limit,
        sampling=SamplingArguments(temperature=0.9),
        seed=7,
    )
    lengths = []
    for row, (prompt, response) in enumerate(zip(prompts, found.response_ids(), strict=True)):
        draws = np.random.Generator(np.random.Philox(key=[7, row])).random(limit)

        def choose(logits, step, draws=draws):
            scaled = [float(x) / 0.9 for x in logits]
            weights = [np.exp(x - max(scaled)) for x in scaled]
            reached = 0.0
            for token, weight in enumerate(weights):
                reached += weight / sum(weights)
                if reached > draws[step]:
                    return token
            raise AssertionError

        assert response == alone(model, prompt, choose, limit)
        lengths.append(len(response))
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0] / 0.9
        expected = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
        expected = expected[range(len(response)), response]
        seen = found.logprobs[row]
        torch.testing.assert_close(seen[: len(response)], expected, rtol=1e-4, atol=1e-4)
        assert not seen[len(response) :].any()
    assert min(lengths) <= CHECK_EVERY < max(lengths)  # the batch shrank on the way
    assert found.ended.tolist() == [response[-1] == 2 for response in found.response_ids()]
    assert found.response_width == max(lengths)


def test_a_rows_text_does_not_depend_on_its_neighbours():
    model = often_ending("llama")
    settings = {"max_new_tokens": 20, "eos_id": 2, "pad_id": 0, "sampling": SamplingArguments()}
    few = sample_responses(model, PROMPTS, seed=3, **settings).response_ids()
    many = sample_responses(
        model, [*PROMPTS, *[[1, 90 + i] for i in range(30)]], seed=3, **settings
    )
    assert many.response_ids()[:3] == few
    others = sample_responses(model, [PROMPTS[0], [1, 33, 44, 55, 66, 77, 88]], seed=3, **settings)
    assert others.response_ids()[0] == few[0]


def test_uniform_draws():
    draws = uniform_draws(5, rows=40, steps=50)
    assert draws.shape == (40, 50) and draws.dtype == torch.float64
    assert 0.0 <= draws.min() and draws.max() < 1.0
    assert len(draws.flatten().unique()) == 2000
    assert abs(float(draws.mean()) - 0.5) < 0.03
    assert torch.equal(uniform_draws(5, rows=3, steps=7), draws[:3, :7])
    assert not torch.equal(uniform_draws(6, rows=40, steps=50), draws)


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
    found = choose_tokens(torch.tensor([LOGITS]).expand(points, -1), sampling, draws)
    shares = torch.bincount(found, minlength=6).double() / points
    torch.testing.assert_close(
        shares,
        torch.tensor(kept_share(tokens, sampling.temperature), dtype=torch.float64),
        rtol=0,
        atol=2 / points,
    )


def test_layout():
    rollout = sample(tiny_causal_lm("llama"))
    width = rollout.input_ids.shape[1] - rollout.response_width
    assert width == 5
    assert rollout.input_ids[1, :width].tolist() == [0, 0, 0, 1, 60]
    assert rollout.attention_mask[1, :width].tolist() == [False] * 3 + [True] * 2
    assert rollout.attention_mask.dtype == torch.bool


def test_draws_depend_on_the_seed_only():
    model = tiny_causal_lm("llama")
    torch.manual_seed(1)
    first = sample(model).input_ids
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again, other = sample(model).input_ids, sample(model, seed=6).input_ids
    assert torch.equal(first, again)
    assert not torch.equal(first[:, :7], other[:, :7])
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's stream was left alone


def test_the_models_own_sampling_defaults_are_not_used():
    """Chat models bring top_k and temperature along; PPO must not inherit them."""
    model = tiny_causal_lm("llama")
    expected = sample(model).input_ids
    model.generation_config.top_k = 1
    model.generation_config.temperature = 0.01
    model.generation_config.repetition_penalty = 5.0
    assert torch.equal(sample(model).input_ids, expected)


def test_temperature_and_top_k():
    model = tiny_causal_lm("llama")
    greedy = sample(model, greedy=True).response_ids()
    assert sample(model, sampling=SamplingArguments(top_k=1)).response_ids() == greedy
    assert sample(model, sampling=SamplingArguments(temperature=1e-4)).response_ids() == greedy
    assert sample(model).response_ids() != greedy
