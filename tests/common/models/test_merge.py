"""Adapters merged into the weights beneath them: on request at a stage's end, or by the command."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from common.config.arguments import LoraArguments, ModelArguments
from common.errors import UserError
from common.models.cards import Card
from common.models.loading import load_causal_lm, load_tokenizer, save_model, separate_pad, stop_at
from common.models.merge import kind_of, main, reload_to_merge
from common.models.policy import PolicyModel
from common.models.scalar import load_scalar_model
from tests.models import save_tiny

PLAIN = ModelArguments()
LORA = LoraArguments(lora_rank=4, lora_merge=True)
IDS = torch.tensor([[1, 9, 30, 77, 8, 50, 2]])
STOCK = {
    "policy": AutoModelForCausalLM,
    "reward": AutoModelForSequenceClassification,
    "critic": AutoModelForTokenClassification,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama"))


def trained(kind, base):
    """A model whose adapters and head have been moved, and its tokenizer."""
    tokenizer = load_tokenizer(base)
    torch.manual_seed(1)
    if kind == "policy":
        model = PolicyModel(load_causal_lm(base, PLAIN, LORA))
        stop_at(model.inner, 77)
    else:
        pad = separate_pad(tokenizer) if kind == "reward" else None
        model = load_scalar_model(base, kind, PLAIN, new_head=True, tokenizer=pad, lora=LORA)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return model.eval(), tokenizer


def answers(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("kind", STOCK)
def test_merged_weights_answer_as_base_and_adapters_do_through_peft(kind, base, tmp_path):
    model, tokenizer = trained(kind, base)
    save_model(model, tokenizer, tmp_path / "adapters", "card")
    assert kind_of(str(tmp_path / "adapters")) == kind
    options = {} if kind == "policy" else {"num_labels": 1}
    plain = STOCK[kind].from_pretrained(base, **options).eval()
    plain.resize_token_embeddings(model.inner.get_input_embeddings().num_embeddings)
    if kind == "reward":
        plain.config.pad_token_id = tokenizer.pad_token_id
    peft = PeftModel.from_pretrained(plain, str(tmp_path / "adapters")).eval()
    expected = answers(peft)

    reload = reload_to_merge(LORA, kind, PLAIN)
    save_model(model, tokenizer, tmp_path / "asked", "card", reload)
    main([str(tmp_path / "adapters"), str(tmp_path / "command")])
    for name in ("asked", "command"):
        folder = tmp_path / name
        assert not (folder / "adapter_config.json").exists()
        assert (folder / "README.md").read_text() == "card"
        found = answers(STOCK[kind].from_pretrained(folder).eval())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert load_tokenizer(str(folder)).pad_token_id == tokenizer.pad_token_id
        if kind == "policy":
            merged = AutoModelForCausalLM.from_pretrained(folder)
            assert 77 in merged.generation_config.eos_token_id


def test_a_model_in_bf16_is_merged_in_fp32_and_written_in_bf16(base, tmp_path):
    model, tokenizer = trained("policy", base)
    half = model.to(torch.bfloat16)
    save_model(half, tokenizer, tmp_path / "asked", None, reload_to_merge(LORA, "policy", PLAIN))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "asked", dtype="auto")
    save_model(half, tokenizer, tmp_path / "adapters", None)
    main([str(tmp_path / "adapters"), str(tmp_path / "command")])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "command", dtype="auto")
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), merged.parameters(), strict=True)
    )
    assert merged.dtype == torch.bfloat16 and not (tmp_path / "asked" / "README.md").exists()
    layer = half.inner.model.layers[0].mlp.up_proj
    a, b = (m["default"].weight.float() for m in (layer.lora_A, layer.lora_B))
    weight = AutoModelForCausalLM.from_pretrained(base).model.layers[0].mlp.up_proj.weight
    expected = (weight + b @ a * (LORA.lora_alpha / 4)).to(torch.bfloat16)
    assert torch.equal(merged.model.layers[0].mlp.up_proj.weight, expected)


def test_nothing_is_merged_unasked():
    assert reload_to_merge(LoraArguments(lora_rank=4), "policy", PLAIN) is None
    with pytest.raises(UserError, match="lora_merge is set, but lora_rank is 0"):
        LoraArguments(lora_merge=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "usage"),
        (["{base}", "out"], "no adapters here"),
        (["{base}", "{base}"], "is there already"),
    ],
)
def test_the_command_says_what_is_wrong(base, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        main([a.replace("{base}", base) for a in arguments])
    assert not Path("out").exists()


def test_a_card_tells_what_the_folder_holds(base, tmp_path):
    model, tokenizer = trained("policy", base)
    card = Card(
        "A title",
        "A kind.",
        "sft",
        {"rate": 0.1, "text": "a|b"},
        ["data.jsonl"],
        {"perplexity": 3.14159265358979, "left_out": {}},
        ["It is small."],
        "meta-llama/Llama-2-13b-hf",
    )
    save_model(model, tokenizer, tmp_path / "adapters", card)
    save_model(model, tokenizer, tmp_path / "whole", card, reload_to_merge(LORA, "policy", PLAIN))
    texts = {n: (tmp_path / n / "README.md").read_text() for n in ("adapters", "whole")}
    for text in texts.values():
        for part in ("# A title", "A kind.", "- `data.jsonl`", "| perplexity | `3.14159` |"):
            assert part in text
        assert "- It is small." in text and "| text | `a\\|b` |" in text
        assert "base_model: meta-llama/Llama-2-13b-hf" in text
    main([str(tmp_path / "adapters"), str(tmp_path / "command")])
    texts["command"] = (tmp_path / "command" / "README.md").read_text()
    assert texts["command"] == texts["whole"]
    assert "library_name: peft" in texts["adapters"] and "Adapters:" in texts["adapters"]
    assert "library_name: transformers" in texts["whole"] and "Whole weights." in texts["whole"]


def test_a_folder_is_no_base_on_the_hub():
    for base in ("/models/x", "tiny", "tests/common"):
        text = Card("T", "K.", "sft", {}, [], {}, [], base).text(adapters=False)
        assert "base_model" not in text and "None." in text
