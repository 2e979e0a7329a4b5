"""The cache of rows: what it takes in, and what it lets go of."""

import torch
from transformers.cache_utils import DynamicCache

from common.hybrid_engine.cache import RowCache


def test_prompts_are_taken_away_layer_by_layer_as_they_come_in():
    """Two left-padded prompts of 3 and 2 tokens; three rows, the first two of the second prompt."""
    prompts, states = DynamicCache(), []
    for layer in range(2):
        states.append([torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)])
        prompts.update(*states[-1], layer)
    cache = RowCache(slots=4, capacity=6, device=torch.device("cpu"))
    cache.add(prompts, [0, 1], torch.tensor([1, 1, 0]), held=0)
    assert prompts.layers == [None, None]
    for layer, pair in zip(cache.layers, states, strict=True):
        for buffer, given in zip((layer.keys, layer.values), pair, strict=True):
            assert buffer.shape == (4, 1, 6, 4)
            for row in (0, 1):  # its padding stands behind it
                assert torch.equal(buffer[row, :, :2], given[1, :, 1:])
            assert torch.equal(buffer[2, :, :3], given[0])
