"""The layout of a rollout: masks by position."""

import torch

from common.hybrid_engine.rollout import assemble, response_mask


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


def test_what_stands_behind_an_end_token_is_blanked():
    rollout = assemble(
        torch.tensor([[9, 1, 20], [1, 30, 40]]),
        torch.tensor([[False, True, True], [True, True, True]]),
        torch.tensor([[5, 2, 8, 8], [6, 7, 2, 8]]),
        -torch.arange(1.0, 9.0).view(2, 4),
        eos_id=2,
        pad=0,
    )
    assert rollout.input_ids.tolist() == [[0, 1, 20, 5, 2, 0], [1, 30, 40, 6, 7, 2]]
    assert rollout.attention_mask.tolist() == [
        [False, True, True, True, True, False],
        [True] * 6,
    ]
    assert rollout.response_width == 3 and rollout.ended.tolist() == [True, True]
    assert rollout.logprobs.tolist() == [[-1.0, -2.0, 0.0], [-5.0, -6.0, -7.0]]
    assert rollout.response_ids() == [[5, 2], [6, 7, 2]]
