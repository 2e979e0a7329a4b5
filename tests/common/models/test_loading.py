"""Loading and saving: nothing is missing unnoticed, dropout is off, folders are whole."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.config.arguments import LoraArguments, ModelArguments
from common.errors import UserError
from common.models.loading import (
    disable_dropout,
    load_causal_lm,
    load_tokenizer,
    save_model,
    separate_pad,
)
from common.models.scalar import load_scalar_model
from tests.models import byte_tokenizer, save_tiny, tiny_causal_lm

KINDS = ["llama", "gpt2", "opt"]
PLAIN = ModelArguments()
IDS = torch.tensor([[1, 9, 30, 77, 8, 50, 2]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_comes_back(kind, tmp_path):
    original = tiny_causal_lm(kind)
    loaded = load_causal_lm(str(save_tiny(tmp_path / "m", kind)), PLAIN)
    with torch.no_grad():
        assert torch.allclose(loaded(IDS).logits, original(IDS).logits, atol=1e-4)
    assert all(p.requires_grad for p in loaded.parameters())


def test_weights_are_fp32_whatever_the_file_holds(tmp_path):
    tiny_causal_lm("llama").bfloat16().save_pretrained(tmp_path)
    loaded = load_causal_lm(str(tmp_path), PLAIN)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


# What is missing.


def test_a_weight_that_the_files_lack_is_an_error(tmp_path):
    folder = save_tiny(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = r"1 weights of the model are not in its files, e\.g\. .*layers\.1\.mlp\.up_proj"
    with pytest.raises(UserError, match=message):
        load_causal_lm(str(folder), PLAIN)
    for role in ("reward", "critic"):  # only the head is new
        with pytest.raises(UserError, match=message):
            load_scalar_model(str(folder), role, PLAIN, new_head=True)


def test_a_weight_of_another_shape_is_an_error(tmp_path):
    folder = save_tiny(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] += 8
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=str(folder)):
        load_causal_lm(str(folder), PLAIN)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./nowhere", "runs/none/models/sft"])
def test_no_such_folder(path):
    for load in (load_tokenizer, lambda p: load_causal_lm(p, PLAIN)):
        with pytest.raises(UserError, match="no such model folder"):
            load(path)


def test_a_folder_without_a_model(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match=r"neither config\.json nor adapters"):
        load_causal_lm(str(tmp_path), PLAIN)


def test_a_folder_without_weights(tmp_path):
    tiny_causal_lm("llama").config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot load the model"):
        load_causal_lm(str(tmp_path), PLAIN)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_a_tokenizer(kind, tmp_path):
    """For GPT-2 and OPT transformers makes up a tokenizer with a single token instead."""
    tiny_causal_lm(kind).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no tokenizer.*copy tokenizer\.json"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_without_an_end_token(tmp_path):
    tiny_causal_lm("llama").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in config.items() if k != "eos_token"}))
    with pytest.raises(UserError, match=r"no end token \(eos_token\)"):
        load_tokenizer(str(tmp_path))


# Pad tokens.


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token(tmp_path):
    tiny_causal_lm("llama").save_pretrained(tmp_path)
    byte_tokenizer(pad=None).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


def test_a_pad_token_of_its_own_stays():
    tokenizer = separate_pad(byte_tokenizer())
    assert (tokenizer.pad_token, tokenizer.pad_token_id, len(tokenizer)) == ("<pad>", 0, 259)


@pytest.mark.parametrize("pad", ["</s>", None])
def test_a_pad_token_is_added_where_it_is_the_end_token(pad):
    tokenizer = separate_pad(byte_tokenizer(pad=pad))
    assert (tokenizer.pad_token_id, len(tokenizer)) == (259, 260)
    assert tokenizer.eos_token_id == 2
    # Text stays text: nobody's bytes become the new token by accident.
    assert 259 not in tokenizer("a pad token", add_special_tokens=False).input_ids


def test_an_unknown_token_serves_as_pad_unless_it_is_the_end_token():
    tokenizer = byte_tokenizer(pad="</s>")
    tokenizer.unk_token = "<pad>"  # any token but the end token
    assert (separate_pad(tokenizer).pad_token_id, len(tokenizer)) == (0, 259)
    tokenizer = byte_tokenizer(pad="</s>")
    tokenizer.unk_token = "</s>"  # as GPT-2's
    assert (separate_pad(tokenizer).pad_token_id, len(tokenizer)) == (259, 260)


# Dropout.


def with_dropout(folder, kind):
    """Rewrites a folder's config so that every dropout it knows of is on."""
    save_tiny(folder, kind)
    names = {
        "llama": ["attention_dropout"],
        "gpt2": ["attn_pdrop", "embd_pdrop", "resid_pdrop", "summary_first_dropout"],
        "opt": ["dropout", "attention_dropout", "activation_dropout", "layerdrop"],
    }[kind]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | dict.fromkeys(names, 0.5)))
    return str(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_off_in_training_mode(kind, tmp_path):
    folder = with_dropout(tmp_path / kind, kind)
    stock = AutoModelForCausalLM.from_pretrained(folder).train()
    with torch.no_grad():
        assert not torch.equal(stock(IDS).logits, stock(IDS).logits)  # it would have been on
        model = load_causal_lm(folder, PLAIN).train()
        expected = load_causal_lm(folder, PLAIN).eval()(IDS).logits
        for _ in range(3):
            assert torch.allclose(model(IDS).logits, expected, atol=1e-4)
        for role in ("reward", "critic"):
            scalar = load_scalar_model(folder, role, PLAIN, new_head=True).train()
            first = scalar.inner.base_model(input_ids=IDS).last_hidden_state
            assert torch.equal(first, scalar.inner.base_model(input_ids=IDS).last_hidden_state)
            dropouts = [m.p for m in scalar.modules() if isinstance(m, nn.Dropout)]
            assert not any(dropouts)  # the token classes' own default is 0.1


def test_dropout_of_adapters_can_be_switched_off_too(tmp_path):
    lora = LoraArguments(lora_rank=4, lora_dropout=0.5)
    model = load_causal_lm(str(save_tiny(tmp_path / "m")), PLAIN, lora).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        assert not torch.equal(model(IDS).logits, model(IDS).logits)
        disable_dropout(model)
        assert torch.equal(model(IDS).logits, model(IDS).logits)


# Saving.


def test_save_model_writes_a_whole_folder_and_replaces_an_old_one(tmp_path):
    folder = tmp_path / "models" / "sft"
    folder.mkdir(parents=True)
    (folder / "stale.txt").write_text("of an earlier run")
    model = tiny_causal_lm("llama")
    save_model(model, byte_tokenizer(), folder, "# The card")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl", ".txt")) for name in names)
    assert (folder / "README.md").read_text() == "# The card"
    assert [path.name for path in folder.parent.iterdir()] == ["sft"]  # nothing half-written
    assert AutoTokenizer.from_pretrained(folder)("Hi").input_ids == byte_tokenizer()("Hi").input_ids
    with torch.no_grad():
        stock = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.allclose(stock(IDS).logits, model(IDS).logits, atol=1e-4)
