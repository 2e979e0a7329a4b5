"""Token by token comes the very response that a rollout gives."""

import pytest
import torch

from common.config.arguments import SamplingArguments
from common.errors import NotFinite
from common.hybrid_engine import streaming
from common.hybrid_engine.generation import sample_responses
from common.hybrid_engine.streaming import stream_response
from tests.models import tiny_causal_lm

PROMPT = [1, 20, 30, 40, 50]
COMMON = {"eos_id": 2, "pad_id": 0, "max_new_tokens": 12}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "mistral"])
@pytest.mark.parametrize("greedy", [False, True])
def test_it_equals_the_rollout(kind, greedy):
    model = tiny_causal_lm(kind)
    settings = {**COMMON, "sampling": SamplingArguments(top_k=40), "seed": 5, "greedy": greedy}
    whole = sample_responses(model, [PROMPT], **settings).response_ids()[0]
    assert list(stream_response(model, PROMPT, **settings)) == whole


def test_it_stops_behind_the_end_token_and_at_the_limit():
    model = tiny_causal_lm("llama")
    settings = {**COMMON, "sampling": SamplingArguments(), "seed": 5}
    tokens = list(stream_response(model, PROMPT, **settings))
    assert len(tokens) == 12 and 2 not in tokens
    settings["eos_id"] = tokens[3]
    assert list(stream_response(model, PROMPT, **settings)) == tokens[: tokens.index(tokens[3]) + 1]


def test_two_streams_in_turn_do_not_disturb_each_other():
    model = tiny_causal_lm("llama")
    settings = {**COMMON, "sampling": SamplingArguments()}
    one, two = (stream_response(model, PROMPT, seed=seed, **settings) for seed in (1, 2))
    both = list(zip(one, two, strict=True))
    for place, seed in enumerate((1, 2)):
        alone = list(stream_response(model, PROMPT, seed=seed, **settings))
        assert [pair[place] for pair in both] == alone


def test_a_model_that_the_loop_does_not_fit_answers_whole(monkeypatch):
    monkeypatch.setattr(streaming, "takes_masks_over_pairs", lambda model: False)
    model = tiny_causal_lm("llama")
    settings = {**COMMON, "sampling": SamplingArguments(), "seed": 5, "greedy": True}
    whole = sample_responses(model, [PROMPT], **settings).response_ids()[0]
    assert list(stream_response(model, PROMPT, **settings)) == whole


def test_gradients_stay_on_outside():
    stream = stream_response(
        tiny_causal_lm("llama"), PROMPT, sampling=SamplingArguments(), seed=5, **COMMON
    )
    next(stream)
    assert torch.is_grad_enabled()
    stream.close()


def test_a_broken_model_is_an_error():
    model = tiny_causal_lm("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    settings = {**COMMON, "sampling": SamplingArguments(), "seed": 5}
    with pytest.raises(NotFinite, match="NaN"):
        list(stream_response(model, PROMPT, **settings))
