"""Packed rows: what each token sees, and that its outputs are those of a row of its own."""

import pytest
import torch
from transformers import Gemma2Config, MistralConfig

from common.training import packing
from common.training.packing import arrange, can_pack, first_fit, pack
from tests.models import tiny_causal_lm

GROUPS = [
    [[1, 20, 30, 40, 50]],
    [[1, 60, 61, 70, 2], [1, 60, 61, 80, 81, 82, 2], [1, 60, 61, 70, 71, 2]],
    [[1, 90]],
    [[11, 12, 13], [21, 22]],  # nothing in common
    [[5, 6], [5, 6]],  # equal: each still keeps a token of its own
]


def outputs_of(model, packed):
    with torch.no_grad():
        return model(
            input_ids=packed.input_ids,
            attention_mask=packed.attention_mask,
            position_ids=packed.position_ids,
        ).logits


@pytest.mark.parametrize("capacity", [0, 24, 1000])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_a_packed_sequence_is_read_as_if_it_were_alone(kind, capacity):
    model = tiny_causal_lm(kind)
    packed = pack(GROUPS, 0, capacity)
    outputs = outputs_of(model, packed).flatten(0, 1)
    for group, ends in zip(GROUPS, packed.ends, strict=True):
        for sequence, end in zip(group, ends, strict=True):
            with torch.no_grad():
                expected = model(torch.tensor([sequence])).logits[0, -1]
            torch.testing.assert_close(outputs[end], expected, rtol=1e-4, atol=1e-4)


def test_tokens_of_a_lone_sequence_lie_side_by_side():
    model = tiny_causal_lm("gpt2")
    packed = pack([[[1, 20, 30]], [[1, 40, 50, 60]]], 0, 7)
    assert packed.input_ids.tolist() == [[1, 40, 50, 60, 1, 20, 30]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert packed.ends == [[6], [3]]
    outputs = outputs_of(model, packed)[0]
    with torch.no_grad():
        alone = model(torch.tensor([[1, 20, 30]])).logits[0]
    torch.testing.assert_close(outputs[4:], alone, rtol=1e-4, atol=1e-4)


def test_what_is_shared_goes_through_once():
    packed = pack([[[1, 7, 8, 2], [1, 7, 9, 5, 2]]], 0, 0)
    assert packed.input_ids.tolist() == [[1, 7, 8, 2, 9, 5, 2]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2, 3, 4]]
    assert packed.ends == [[3, 6]]
    seen = packed.attention_mask[0, 0].int().tolist()
    assert seen[3] == [1, 1, 1, 1, 0, 0, 0]
    assert seen[6] == [1, 1, 0, 0, 1, 1, 1]


def test_the_others_in_a_row_change_nothing():
    """Other sequences, other tokens in them, padding: the outputs stay to the last digits."""
    model = tiny_causal_lm("llama")
    mine = [[1, 20, 30, 40]]
    found = []
    for other in ([[1, 50, 60]], [[9, 8, 7]], [[200, 201, 202], [200, 203, 204]]):
        packed = pack([mine, other], 0, 12)
        found.append(outputs_of(model, packed).flatten(0, 1)[packed.ends[0][0]])
    for one in found[1:]:
        torch.testing.assert_close(one, found[0], rtol=1e-5, atol=1e-5)


def test_rows_are_filled_largest_first():
    assert first_fit([3, 6, 4, 2, 5], 10) == [[1, 2], [4, 0, 3]]
    assert first_fit([5, 5, 5], 5) == [[0], [1], [2]]


IDS = torch.tensor(
    [
        [0, 0, 1, 20, 30, 40, 2, 0],  # left and right
        [0, 0, 0, 1, 50, 0, 0, 0],
        [1, 60, 0, 61, 0, 0, 0, 0],  # in between; a pad id that is a token
        [0, 1, 70, 71, 72, 73, 74, 2],
    ]
)
MASK = torch.tensor(
    [
        [0, 0, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 1, 1],
    ]
).bool()


def test_padding_is_taken_out_by_packing():
    found = arrange(tiny_causal_lm("llama"), IDS, MASK)
    assert found.inputs["input_ids"].tolist() == [
        [1, 70, 71, 72, 73, 74, 2],
        [1, 20, 30, 40, 2, 1, 50],
        [1, 60, 0, 61, 0, 0, 0],
    ]
    assert found.inputs["position_ids"].tolist() == [
        [0, 1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 0, 1],
        [0, 1, 2, 3, 4, 5, 6],
    ]
    assert found.places[0][MASK[0]].tolist() == [7, 8, 9, 10, 11]
    assert found.places[1][MASK[1]].tolist() == [12, 13]
    seen = found.inputs["attention_mask"][1, 0].int().tolist()
    assert seen[4] == [1, 1, 1, 1, 1, 0, 0] and seen[6] == [0, 0, 0, 0, 0, 1, 1]


def test_rows_too_long_for_a_mask_only_move_to_the_left(monkeypatch):
    monkeypatch.setattr(packing, "PACK_WIDTH", 6)
    found = arrange(tiny_causal_lm("llama"), IDS, MASK)
    assert found.inputs["attention_mask"] is None
    assert found.inputs["input_ids"].shape == (4, 7)


def test_rows_of_like_length_only_move_to_the_left():
    found = arrange(tiny_causal_lm("llama"), IDS[[0, 0]], MASK[[0, 0]])
    assert found.inputs["input_ids"].tolist() == [[1, 20, 30, 40, 2]] * 2
    assert found.inputs["attention_mask"] is None
    assert found.places[1][MASK[0]].tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "qwen2", "mistral"])
@pytest.mark.parametrize("garbage", [0, 77])
def test_tokens_of_a_batch_are_read_as_if_their_row_were_alone(kind, garbage):
    """Packed where the model allows it, and moved to the left where it does not (windows)."""
    model = tiny_causal_lm(kind)
    ids = IDS.masked_fill(~MASK, garbage)
    found = arrange(model, ids, MASK)
    assert (found.inputs["attention_mask"] is not None) == can_pack(model)
    with torch.no_grad():
        outputs = model(**found.inputs).logits.flatten(0, 1)[found.places]
        for row in range(len(ids)):
            expected = model(ids[row][MASK[row]].unsqueeze(0)).logits[0]
            torch.testing.assert_close(outputs[row][MASK[row]], expected, rtol=1e-4, atol=1e-4)


def test_a_row_without_tokens_is_no_trouble():
    mask = MASK.clone()
    mask[1] = False
    found = arrange(tiny_causal_lm("llama"), IDS, mask)
    assert int(found.places.max()) < found.inputs["input_ids"].numel()
    assert found.places[0][MASK[0]].tolist() == [7, 8, 9, 10, 11]


def test_models_that_would_ignore_the_mask():
    model = tiny_causal_lm("llama")
    assert can_pack(model)
    model.config._attn_implementation = "eager"
    assert not can_pack(model)

    class Other:
        config = MistralConfig(sliding_window=16)

    Other.config._attn_implementation = "sdpa"
    assert not can_pack(Other)
    Other.config.sliding_window = None
    assert can_pack(Other)
    Other.config = Gemma2Config()
    Other.config._attn_implementation = "sdpa"
    assert not can_pack(Other)
