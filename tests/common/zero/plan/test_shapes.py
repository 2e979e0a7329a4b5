"""Counts against counting by hand, passes against what a real model really keeps."""

import json

import pytest
import torch

from common.config.arguments import ModelArguments
from common.errors import UserError
from common.models.loading import load_causal_lm
from common.models.logprobs import position_ids
from common.models.policy import PolicyModel
from common.zero.plan.shapes import Source, Variant, count, kv_elements, passes, read_config
from tests.configs import write_config
from tests.models import save_tiny


def source(folder, name):
    return Source(str(write_config(folder, name)))


def test_weights_of_opt_125m_are_those_counted_by_hand(tmp_path):
    width, inner, vocabulary = 768, 3072, 50272
    attention = 4 * (width * width + width)
    feed_forward = width * inner + inner + inner * width + width
    norms = 2 * 2 * width
    layers = 12 * (attention + feed_forward + norms)
    embeddings = vocabulary * width + (2048 + 2) * width  # the head is the first of them
    counts = count(Variant(source(tmp_path, "facebook/opt-125m")))
    assert counts.weights == counts.trained == layers + embeddings + 2 * width == 125_239_296


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496),
        ("meta-llama/Llama-2-13b-hf", 13_015_864_320),
    ],
)
def test_weights_of_llamas_are_those_published_and_counted_by_hand(tmp_path, name, weights):
    where = source(tmp_path, name)
    config = json.loads((tmp_path / "config.json").read_text())
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    keys = width // heads * config.get("num_key_value_heads", heads)
    layer = 2 * width * width + 2 * width * keys + 3 * width * inner + 2 * width
    by_hand = config["num_hidden_layers"] * layer + 2 * config["vocab_size"] * width + width
    assert count(Variant(where)).weights == by_hand == weights


def test_adapters_add_rank_times_both_sides_of_each_linear_layer(tmp_path):
    where = source(tmp_path, "facebook/opt-125m")
    plain, adapted = count(Variant(where)), count(Variant(where, lora_rank=8))
    sides = 4 * (768 + 768) + 2 * (768 + 3072)
    assert adapted.trained == 12 * 8 * sides
    assert adapted.weights == plain.weights + adapted.trained


def test_a_scalar_model_has_one_row_in_place_of_the_vocabulary(tmp_path):
    where = source(tmp_path, "meta-llama/Llama-3.1-8B")
    policy, scalar = count(Variant(where)), count(Variant(where, "scalar"))
    assert scalar.weights == policy.weights - 128256 * 4096 + 4096


def test_cache_of_llama_8b_takes_128_kib_a_token_in_bf16(tmp_path):
    config = read_config(source(tmp_path, "meta-llama/Llama-3.1-8B"))
    assert 2 * kv_elements(config) == 2 * 2 * 32 * 8 * 128 == 128 * 1024


def test_no_weights_are_loaded(tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    def refuse(*_, **__):
        raise AssertionError("weights are being loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    where = source(tmp_path, "facebook/opt-66b")
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    assert 65e9 < count(Variant(where)).weights < 67e9
    assert sum(passes(Variant(where), 1, 64).forward.values()) > 0


def test_adapters_have_their_bases_shape(tmp_path):
    base = write_config(tmp_path / "base", "facebook/opt-125m")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(base)})
    )
    assert count(Variant(Source(str(tmp_path)))).weights == 125_239_296


def test_a_model_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match="--plan_model"):
        read_config(Source(str(tmp_path)))


def kept_bytes(model, rows, width):
    """What autograd keeps of a real forward on a CPU: each storage once, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.randint(3, 250, (rows, width))
    mask = torch.ones(rows, width, dtype=torch.bool)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        scores = PolicyModel(model)(ids, mask, mask, position_ids(mask))
    return sum(size for size, _ in kept.values()), scores


@pytest.mark.parametrize("kind", ["llama", "llama-gqa", "opt", "gpt2"])
def test_a_forward_on_the_meta_device_keeps_what_a_real_one_keeps(tmp_path, kind):
    rows, width = 4, 96
    model = load_causal_lm(str(save_tiny(tmp_path, kind)), ModelArguments()).train()
    real, _ = kept_bytes(model, rows, width)
    traced = passes(Variant(Source(str(tmp_path))), rows, width, width - 1, train=True)
    live = sum(traced.forward.values())
    # At its worst a forward holds what is kept, the logits while their softmax is worked out, and
    # the hidden states that they are of.
    logits = rows * (width - 1) * model.config.vocab_size * 4
    hidden = rows * width * model.config.hidden_size * 4
    assert real <= live <= real + 1.05 * logits + hidden


def test_checkpointing_keeps_less_and_more_layers_keep_more(tmp_path):
    def held(layers, checkpointing):
        where = Source("tiny", tiny=(layers, 64, 4, 300, 128))
        trace = passes(Variant(where, checkpointing=checkpointing), 2, 64, 32, train=True)
        return sum(trace.alone.values())

    assert held(8, True) < 0.4 * held(8, False)
    assert held(4, False) < held(8, False) < 2 * held(4, False)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_few_layers_tell_is_what_all_layers_take(monkeypatch, checkpointing):
    import common.zero.plan.shapes as shapes

    where = Source("tiny", tiny=(9, 64, 4, 300, 128))
    variant = Variant(where, lora_rank=4, checkpointing=checkpointing)
    few = passes(variant, 2, 64, 32, train=True), count(variant)
    for cached in (passes, count):
        cached.cache_clear()
    monkeypatch.setattr(shapes, "MORE", 99)
    whole = passes(variant, 2, 64, 32, train=True), count(variant)
    for cached in (passes, count):
        cached.cache_clear()
    assert few[1] == whole[1]
    for one, other in zip(few[0], whole[0], strict=True):
        assert sum(one.values()) == pytest.approx(sum(other.values()), rel=0.02)
