"""Rollouts: layout, masks, seeds."""

import pytest
import torch

from common.config.arguments import SamplingArguments
from common.hybrid_engine.generation import left_pad, response_mask, right_pad, sample_responses
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


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_greedy_equals_a_loop_over_bare_prefixes(kind):
    """Each row by itself, without padding or cache: argmax over the whole prefix at every step."""
    model = tiny_causal_lm(kind)
    found = sample(model, greedy=True).response_ids()
    for prompt, response in zip(PROMPTS, found, strict=True):
        expected: list[int] = []
        while len(expected) < 6 and (not expected or expected[-1] != 2):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + expected])).logits[0, -1]
            expected.append(int(logits.argmax()))
        assert response == expected


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
