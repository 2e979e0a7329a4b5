"""Rollouts: layout, masks, seeds."""

import numpy as np
import pytest
import torch

from common.config.arguments import SamplingArguments
from common.errors import UserError
from common.hybrid_engine.generation import CHECK_EVERY, sample_responses
from tests.common.hybrid_engine.test_draws import draw_by_definition
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


KINDS = ["llama", "llama-gqa", "gpt2", "opt", "mistral", "qwen2"]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_a_loop_over_bare_prefixes(kind):
    model = tiny_causal_lm(kind)
    found = sample(model, greedy=True).response_ids()
    for prompt, response in zip(PROMPTS, found, strict=True):
        assert response == alone(model, prompt, lambda logits, _: int(logits.argmax()))


@pytest.mark.parametrize("end", [2, 0])  # some models' end token is the id that blanks hold
def test_rows_end_where_a_text_stops_them(end):
    model = tiny_causal_lm("llama")
    plain = sample(model, greedy=True, max_new_tokens=40, eos_id=end)
    longest = max(plain.response_ids(), key=len)
    word = longest[3]
    found = sample(
        model, greedy=True, max_new_tokens=40, eos_id=end, stop=lambda ids: ids.count(word) > 9
    )
    assert not found.logprobs.masked_select(~found.response_mask).any()
    for row, (whole, cut) in enumerate(
        zip(plain.response_ids(), found.response_ids(), strict=True)
    ):
        looks = [n for n in range(2, len(whole) + 1) if n % CHECK_EVERY == 1 or n == len(whole)]
        ends = next((n for n in looks if whole[:n].count(word) > 9), len(whole))
        assert cut == whole[:ends]
        assert bool(found.ended[row]) == (cut[-1] == end)
    assert min(map(len, found.response_ids())) < 40


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


@pytest.mark.parametrize("kind", KINDS)
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
        draws = [draw_by_definition(7, row, step) for step in range(limit)]

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


MANY = [[1, *range(30 + i, 30 + i + 1 + i % 5)] for i in range(12) for _ in range(1 + i % 3)]


@pytest.mark.parametrize("places", [1, 2, 5, 8, 100])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_texts_do_not_depend_on_how_many_rows_are_worked_on_at_a_time(kind, places):
    model, limit = often_ending(kind), 3 * CHECK_EVERY + 1
    settings = {"eos_id": 2, "pad_id": 0, "max_new_tokens": limit, "seed": 4}
    found = sample_responses(
        model, MANY, sampling=SamplingArguments(generation_batch_size=places), **settings
    )
    expected = [
        sample_responses(
            model, [prompt], sampling=SamplingArguments(), streams=[row], **settings
        ).response_ids()[0]
        for row, prompt in enumerate(MANY)
    ]
    assert found.response_ids() == expected
    lengths = [len(e) for e in expected]
    assert min(lengths) < CHECK_EVERY and max(lengths) == limit and not all(found.ended)
    assert found.input_ids.shape == (len(MANY), 6 + limit)


def forwards_of(model):
    """Counts the model's forwards, as (rows, tokens a row)."""
    shapes = []
    forward = model.forward

    def counted(*args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    model.forward = counted
    return shapes


def test_a_prompt_is_encoded_once_for_all_its_samples_and_ended_rows_leave():
    model = often_ending("llama")
    shapes = forwards_of(model)
    sample_responses(
        model,
        [[1, 20, 30]] * 5 + [[1, 60, 61]] * 5,
        eos_id=2,
        pad_id=0,
        max_new_tokens=4 * CHECK_EVERY,
        sampling=SamplingArguments(),
        seed=7,
    )
    assert shapes[0] == (2, 3)
    rows = [rows for rows, width in shapes[1:] if width == 1]
    assert len(rows) == len(shapes) - 1
    assert rows[0] == 10 and rows[-1] < 5 and sorted(rows, reverse=True) == rows


def test_waiting_prompts_take_the_places_of_ended_rows():
    model = often_ending("llama")
    shapes = forwards_of(model)
    sample_responses(
        model,
        [[1, 20 + i, 30] for i in range(64)],
        eos_id=2,
        pad_id=0,
        max_new_tokens=3 * CHECK_EVERY,
        sampling=SamplingArguments(generation_batch_size=16),
        seed=7,
    )
    steps = [rows for rows, width in shapes if width == 1]
    assert max(rows for rows, _ in shapes) == 16
    assert sum(width > 1 for _, width in shapes) > 4  # more often than four full batches
    assert sum(rows == 16 for rows in steps) > 0.5 * len(steps)


def test_streams_name_the_draws():
    model = often_ending("llama")
    few = sample(model, streams=[8, 3, 5])
    assert few.response_ids() != sample(model).response_ids()
    again = sample_responses(
        model,
        PROMPTS[1:],
        eos_id=2,
        pad_id=0,
        max_new_tokens=6,
        sampling=SamplingArguments(),
        seed=5,
        streams=[3, 5],
    )
    assert again.response_ids() == few.response_ids()[1:]


def test_repetition_penalty_equals_a_loop_over_bare_prefixes():
    model, penalty = tiny_causal_lm("gpt2"), 1.8
    sampling = SamplingArguments(repetition_penalty=penalty, generation_batch_size=2)
    found = sample(model, greedy=True, sampling=sampling, max_new_tokens=12).response_ids()
    for prompt, response in zip(PROMPTS, found, strict=True):

        def choose(logits, step, prompt=prompt, response=response):
            seen = {*prompt, *response[:step]}
            return max(
                range(len(logits)),
                key=lambda t: (
                    float(logits[t])
                    if t not in seen
                    else float(logits[t]) * (penalty if logits[t] < 0 else 1 / penalty)
                ),
            )

        assert response == alone(model, prompt, choose, 12)
    assert found != sample(model, greedy=True, max_new_tokens=12).response_ids()


def test_no_row_ends_before_the_least_length():
    model = often_ending("llama")

    def lengths(least):
        rollout = sample_responses(
            model,
            MANY,
            eos_id=2,
            pad_id=0,
            max_new_tokens=12,
            sampling=SamplingArguments(min_response_tokens=least),
            seed=8,
        )
        return list(map(len, rollout.response_ids())), rollout.ended

    assert min(lengths(0)[0]) < 9
    held, ended = lengths(9)
    assert min(held) == 10 and ended.any()  # nine tokens, and the end token


def test_first_tokens_follow_the_softmax():
    """χ² of 50,000 first tokens against the softmax of a bare forward."""
    model = tiny_causal_lm("llama", vocabulary=40)
    with torch.no_grad():
        expected = model(torch.tensor([[1, 20, 30]])).logits[0, -1].double().softmax(-1)
    rows = 50_000
    found = sample_responses(
        model,
        [[1, 20, 30]] * rows,
        eos_id=2,
        pad_id=0,
        max_new_tokens=1,
        sampling=SamplingArguments(generation_batch_size=rows),
        seed=11,
    )
    counts = torch.bincount(found.input_ids[:, -1], minlength=40).double()
    assert float(expected.min()) * rows > 5
    statistic = float(((counts - rows * expected) ** 2 / (rows * expected)).sum())
    assert statistic < 72.1  # 39 degrees of freedom, p = 0.001


def test_nan_weights_stop_with_the_place():
    model = tiny_causal_lm("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="no finite probability to token 1 .* prompt 1 of the 3"):
        sample(model)


def test_the_last_position_of_a_model_may_be_used():
    """GPT-2 has an embedding for each position: rows at their limit must not go beyond it."""
    model = tiny_causal_lm("gpt2")  # 256 positions
    prompts = [[1] * 250, [1, 60]]
    rollout = sample_responses(
        model,
        prompts,
        eos_id=-1,
        pad_id=0,
        max_new_tokens=6,
        sampling=SamplingArguments(),
        seed=0,
    )
    assert rollout.input_ids.shape == (2, 256) and rollout.response_mask.all()
