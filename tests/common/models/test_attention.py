"""What a new token sees of a cache whose rows have lengths of their own."""

from types import SimpleNamespace

import pytest
import torch

from common.models.attention import decoding_masks, layer_kinds, takes_masks_over_pairs
from tests.models import tiny_causal_lm


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [
        ("llama", {"full_attention"}),
        ("gpt2", {"full_attention"}),
        ("mistral", {"sliding_attention"}),
        ("qwen2", {"full_attention", "sliding_attention"}),
    ],
)
def test_kinds_of_layers(kind, kinds):
    model = tiny_causal_lm(kind)
    assert layer_kinds(model.config) == kinds
    assert takes_masks_over_pairs(model)


def test_models_that_would_ignore_a_mask():
    model = tiny_causal_lm("llama")
    model.config._attn_implementation = "eager"
    assert not takes_masks_over_pairs(model)
    for changes in (
        {"layer_types": ["linear_attention"]},
        {"model_type": "bloom"},
        {"alibi": True},
    ):
        config = {"model_type": "other", "_attn_implementation": "sdpa", **changes}
        assert not takes_masks_over_pairs(SimpleNamespace(config=SimpleNamespace(**config)))


def test_masks_against_loops():
    columns, width, window = [0, 3, 5], 7, 3
    config = SimpleNamespace(
        layer_types=["sliding_attention", "full_attention"], sliding_window=window
    )
    masks = decoding_masks(config, torch.tensor(columns), width)
    for row, column in enumerate(columns):
        for place in range(width):
            full = place <= column
            assert bool(masks["full_attention"][row, 0, 0, place]) == full
            near = full and column - place < window
            assert bool(masks["sliding_attention"][row, 0, 0, place]) == near
    only = decoding_masks(SimpleNamespace(sliding_window=None), torch.tensor(columns), width)
    assert torch.equal(only, masks["full_attention"])
