"""Adapters: what is trained, what is saved, what comes back, and what must not go unnoticed."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from common.config.arguments import LoraArguments, ModelArguments
from common.errors import UserError
from common.models.loading import load_causal_lm, load_tokenizer, save_model, separate_pad
from common.models.lora import merged_for_now
from common.models.scalar import head_of, load_scalar_model
from tests.models import save_tiny

PLAIN = ModelArguments()
LORA = LoraArguments(lora_rank=4, lora_alpha=8.0)
IDS = torch.tensor([[1, 9, 30, 77, 8, 50, 2]])
LAYERS = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "opt": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: str(save_tiny(root / kind, kind)) for kind in LAYERS}


def moved(model, seed=0):
    """Gives the trainable weights values that matter: fresh adapters change nothing."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return model.eval()


def saved(model, base, folder):
    save_model(model, load_tokenizer(base), folder, "")
    return str(folder)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def scores(model):
    with torch.no_grad():
        return model(IDS, torch.ones_like(IDS))


@pytest.fixture(scope="module")
def adapted(folders, tmp_path_factory):
    """By kind: a language model with adapters as it was in memory, and the folder it went to."""
    root = tmp_path_factory.mktemp("adapters")
    models = {kind: moved(load_causal_lm(folders[kind], PLAIN, LORA)) for kind in LAYERS}
    return {kind: (m, saved(m, folders[kind], root / kind)) for kind, m in models.items()}


# What is trained.


@pytest.mark.parametrize("kind", LAYERS)
def test_only_adapters_are_trainable_in_every_linear_layer(folders, kind):
    model = load_causal_lm(folders[kind], PLAIN, LORA)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_A." in name or ".lora_B." in name for name in trainable)
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trainable} == LAYERS[kind]
    assert {p.shape[0] for n, p in model.named_parameters() if ".lora_A." in n} == {4}
    plain = load_causal_lm(folders[kind], PLAIN)
    assert torch.allclose(logits(model), logits(plain), atol=1e-4)  # as yet they change nothing


def test_only_the_layers_asked_for(folders):
    lora = LoraArguments(lora_rank=2, lora_targets=["q_proj", "up_proj"])
    model = load_causal_lm(folders["llama"], PLAIN, lora)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    # two layers of decoder × two targets × A and B
    assert len(trainable) == 8
    assert all("q_proj" in name or "up_proj" in name for name in trainable)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_target_that_matches_nothing_is_an_error_that_names_the_layers(folders, kind):
    lora = LoraArguments(lora_rank=2, lora_targets=[sorted(LAYERS[kind])[0], "query_key_value"])
    with pytest.raises(UserError, match="no layer of .* is named 'query_key_value'") as caught:
        load_causal_lm(folders[kind], PLAIN, lora)
    assert all(name in str(caught.value) for name in LAYERS[kind])
    assert "lm_head" not in str(caught.value)


@pytest.mark.parametrize("role", ["reward", "critic"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_heads_are_trained_in_full(folders, kind, role):
    model = load_scalar_model(folders[kind], role, PLAIN, new_head=True, lora=LORA)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    heads = {name for name in trainable if "lora_" not in name}
    expected = 1 if role == "reward" else 2  # the reward head has no bias
    assert len(heads) == expected and all("score" in n or "classifier" in n for n in heads)
    scores(model)
    ids = torch.tensor([[1, 9, 30]])
    model(ids, torch.ones_like(ids)).sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if n in heads)


# What is saved, and what comes back.


@pytest.mark.parametrize("kind", LAYERS)
def test_adapters_are_saved_as_adapters_and_come_back_merged(folders, adapted, kind, tmp_path):
    model, folder = adapted[kind]
    expected = logits(model)
    base = load_causal_lm(folders[kind], PLAIN)
    assert (expected - logits(base)).abs().max() > 0.1
    weights = load_file(f"{folder}/adapter_model.safetensors")
    assert weights and all("lora_" in name for name in weights)
    with pytest.raises(FileNotFoundError):
        load_file(f"{folder}/model.safetensors")
    loaded = load_causal_lm(folder, PLAIN)
    assert type(loaded) is type(base)
    assert torch.allclose(logits(loaded), expected, atol=1e-3)
    stock = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders[kind]), folder)
    assert torch.allclose(logits(stock.eval()), expected, atol=1e-3)


@pytest.mark.parametrize("kind", LAYERS)
def test_adapters_on_top_of_an_adapter_folder(folders, adapted, kind, tmp_path):
    _, first = adapted[kind]
    model = moved(load_causal_lm(first, PLAIN, LORA), seed=1)
    second = saved(model, first, tmp_path / "second")
    assert json.loads((tmp_path / "second/adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(first)
    loaded = logits(load_causal_lm(second, PLAIN))
    assert torch.allclose(loaded, logits(model), atol=1e-3)
    for other in (first, folders[kind]):
        assert (loaded - logits(load_causal_lm(other, PLAIN))).abs().max() > 0.1


@pytest.mark.parametrize("role", ["reward", "critic"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_scalar_model_on_top_of_an_adapter_folder(adapted, kind, role):
    """Its backbone has the adapters in it, also where the class names its layers otherwise."""
    model, folder = adapted[kind]
    scalar = load_scalar_model(folder, role, PLAIN, new_head=True)
    with torch.no_grad():
        expected = model.get_base_model().base_model(input_ids=IDS).last_hidden_state
        found = scalar.inner.base_model(input_ids=IDS).last_hidden_state
    assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("pad", ["<pad>", "</s>"], ids=["pad", "pad=eos"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_reward_model_of_adapters_comes_back_with_head_pad_and_normalization(kind, pad, tmp_path):
    base = str(save_tiny(tmp_path / "base", kind, pad=pad))
    tokenizer = separate_pad(load_tokenizer(base))
    model = moved(
        load_scalar_model(base, "reward", PLAIN, new_head=True, tokenizer=tokenizer, lora=LORA)
    )
    model.inner.config.score_mean, model.inner.config.score_std = -0.75, 3.5
    folder = tmp_path / "reward"
    save_model(model, tokenizer, folder, "")
    assert {p.name for p in folder.glob("*.safetensors")} == {"adapter_model.safetensors"}
    loaded = load_scalar_model(str(folder), "reward", PLAIN, new_head=False)
    assert not hasattr(loaded.stock, "peft_config")
    assert torch.allclose(scores(loaded), scores(model), atol=1e-4)
    config = loaded.inner.config
    assert (config.score_mean, config.score_std) == (-0.75, 3.5)
    assert config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert loaded.inner.get_input_embeddings().num_embeddings >= len(tokenizer)
    again = load_tokenizer(str(folder))
    assert again.pad_token_id == tokenizer.pad_token_id
    # A critic that starts from it.
    critic = load_scalar_model(
        str(folder), "critic", PLAIN, new_head=True, head_from=(loaded, -0.75, 3.5, 1.0)
    )
    assert torch.allclose(scores(critic), (scores(model) + 0.75) / 3.5, atol=1e-4)
    # And stock PEFT, which knows nothing of us.
    stock = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    stock.config.pad_token_id = tokenizer.pad_token_id
    stock = PeftModel.from_pretrained(stock, folder).eval()
    assert float(logits(stock)) == pytest.approx(float(scores(model)[0, -1]), abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_critic_of_adapters_comes_back(folders, adapted, kind, tmp_path):
    for base in (folders[kind], adapted[kind][1]):
        model = moved(load_scalar_model(base, "critic", PLAIN, new_head=True, lora=LORA))
        save_model(model, load_tokenizer(base), tmp_path / "critic", "")
        loaded = load_scalar_model(str(tmp_path / "critic"), "critic", PLAIN, new_head=False)
        assert scores(model).std() > 0.01
        assert torch.allclose(scores(loaded), scores(model), atol=1e-3)
        assert head_of(loaded.inner).bias is not None


def test_an_opt_critic_of_adapters_comes_back_with_its_head(folders, adapted, tmp_path):
    for base in (folders["opt"], adapted["opt"][1]):
        model = load_scalar_model(base, "critic", PLAIN, new_head=True, lora=LORA)
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert {n.split(".")[-1] for n in trained if "lora" not in n} == {"weight", "bias"}
        assert all("score" in n or "lora_" in n for n in trained)
        assert any("lora_A" in n for n in trained)
        moved(model)
        save_model(model, load_tokenizer(base), tmp_path / "critic", "")
        assert not (tmp_path / "critic" / "model.safetensors").exists()
        loaded = load_scalar_model(str(tmp_path / "critic"), "critic", PLAIN, new_head=False)
        assert scores(model).std() > 0.01
        assert torch.allclose(scores(loaded), scores(model), atol=1e-3)


def test_adapters_of_a_base_beside_them_are_loaded_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "base")
    model = moved(load_causal_lm("base", PLAIN, LORA))
    save_model(model, load_tokenizer("base"), Path("adapters"), "")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load_causal_lm(str(tmp_path / "adapters"), PLAIN)
    assert torch.allclose(logits(loaded), logits(model), atol=1e-3)


# What must not go unnoticed.


def test_adapters_that_lack_weights_are_an_error(folders, tmp_path):
    model = moved(load_causal_lm(folders["llama"], PLAIN, LORA))
    folder = saved(model, folders["llama"], tmp_path / "adapters")
    file = f"{folder}/adapter_model.safetensors"
    weights = load_file(file)
    lost = next(name for name in weights if "layers.1" in name and "v_proj.lora_B" in name)
    del weights[lost]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights of the adapters .*layers\.1.*v_proj.*lora_B"):
        load_causal_lm(folder, PLAIN)


def test_adapters_of_another_architecture_are_an_error(folders, adapted, tmp_path):
    """Their base was exchanged: PEFT would load what fits, which is nothing."""
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        data = open(f"{adapted['opt'][1]}/{name}", "rb").read()
        (tmp_path / name).write_bytes(data.replace(b"/opt", b"/llama"))
    with pytest.raises(UserError, match=r"adapters|gate_proj|target"):
        load_causal_lm(str(tmp_path), PLAIN)


@pytest.mark.parametrize("kind", LAYERS)
def test_adapters_of_a_language_model_are_no_reward_model(adapted, kind):
    with pytest.raises(UserError, match="score"):
        load_scalar_model(adapted[kind][1], "reward", PLAIN, new_head=False)


def test_adapters_that_do_not_name_their_base(adapted, tmp_path):
    config = json.loads(open(f"{adapted['llama'][1]}/adapter_config.json").read())
    config["base_model_name_or_path"] = None
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="'base_model_name_or_path' is missing"):
        load_causal_lm(str(tmp_path), PLAIN)


@pytest.mark.parametrize("kind", LAYERS)
def test_adapters_are_merged_for_a_while_and_weights_come_back_bit_for_bit(folders, kind):
    model = moved(load_causal_lm(folders[kind], PLAIN, LORA)).eval()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    places = {n: p.data_ptr() for n, p in model.named_parameters()}
    expected = logits(model)
    with merged_for_now(model):
        changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
        assert changed and all("base_layer.weight" in n for n in changed)
        torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
        assert all(layer.merged for layer in model.modules() if hasattr(layer, "lora_B"))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert {n: p.data_ptr() for n, p in model.named_parameters()} == places
    assert torch.equal(logits(model), expected)


def test_weights_come_back_when_the_body_raises(folders):
    model = moved(load_causal_lm(folders["llama"], PLAIN, LORA))
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(KeyError), merged_for_now(model):
        raise KeyError
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not any(layer.merged for layer in model.modules() if hasattr(layer, "lora_B"))


def test_a_weight_that_another_module_uses_is_not_merged(folders):
    """Tied embeddings: the head's adapters must not change what tokens mean on the way in."""
    tied = LoraArguments(lora_rank=2, lora_targets=["lm_head", "q_proj"])
    model = moved(load_causal_lm(folders["llama"], PLAIN, tied)).eval()
    embeddings = model.get_input_embeddings().weight
    before, expected = embeddings.detach().clone(), logits(model)
    with merged_for_now(model):
        assert torch.equal(embeddings, before)
        torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
