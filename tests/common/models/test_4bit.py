"""A base in 4 bits under adapters, where bitsandbytes is installed."""

import importlib.util

import pytest
import torch

from common.config.arguments import LoraArguments, ModelArguments, ZeroArguments
from common.errors import UserError
from common.models.loading import load_causal_lm, load_tokenizer, save_model, separate_pad
from common.models.lora import merged_for_now, weights_to_merge
from common.models.merge import reload_to_merge
from common.models.policy import PolicyModel
from common.models.scalar import load_scalar_model
from common.ppo.models import Wanted, load_one_base, load_separate
from common.reward.places import RewardPlace
from common.training.engine import build_frozen
from tests.models import save_tiny

INSTALLED = importlib.util.find_spec("bitsandbytes") is not None
needs_bitsandbytes = pytest.mark.skipif(not INSTALLED, reason="bitsandbytes is not installed")
FOUR = ModelArguments(base_4bit=True)
LORA = LoraArguments(lora_rank=4)
IDS = torch.tensor([[1, 9, 30, 77, 8, 50, 2]])
MASK = torch.ones_like(IDS, dtype=torch.bool)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama"))


def logprobs(model):
    with torch.no_grad():
        return model(IDS, MASK, MASK).logprobs


def nf4(weight):
    """A matrix to 4 bits and back, by bitsandbytes' own functions."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.detach(), quant_type="nf4", compress_statistics=True)
    return dequantize_4bit(packed, state)


@needs_bitsandbytes
def test_linear_layers_are_rounded_to_4_bits_and_all_else_stays(base):
    found = load_causal_lm(base, FOUR, LORA)
    plain = load_causal_lm(base, ModelArguments())
    with torch.no_grad():
        for name, module in plain.model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(nf4(module.weight))
                layer = found.get_base_model().model.get_submodule(name).get_base_layer()
                assert layer.weight.dtype == torch.uint8
                assert layer.weight.numel() * 2 == module.weight.numel()
    expected = logprobs(PolicyModel(plain))
    torch.testing.assert_close(logprobs(PolicyModel(found)), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(
        expected, logprobs(PolicyModel(load_causal_lm(base, ModelArguments())))
    )


@needs_bitsandbytes
def test_only_adapters_train_and_are_never_merged_into_4_bits(base):
    model = load_causal_lm(base, FOUR, LORA)
    policy = PolicyModel(model)
    policy(IDS, MASK, MASK).logprobs.sum().backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None}
    assert moved and all(".lora_" in name for name in moved)
    assert weights_to_merge(model) == []
    with merged_for_now(model):  # rollouts go on beside the weights
        assert torch.equal(logprobs(policy), logprobs(policy))


@needs_bitsandbytes
def test_merged_on_request_into_the_whole_base(base, tmp_path):
    model = load_causal_lm(base, FOUR, LORA)
    reload = reload_to_merge(LoraArguments(lora_rank=4, lora_merge=True), "policy", FOUR)
    save_model(PolicyModel(model), load_tokenizer(base), tmp_path / "merged", None, reload)
    plain = PolicyModel(load_causal_lm(base, ModelArguments()))
    merged = PolicyModel(load_causal_lm(str(tmp_path / "merged"), ModelArguments()))
    assert torch.equal(logprobs(merged), logprobs(plain))  # new adapters change nothing


@needs_bitsandbytes
@pytest.mark.parametrize("how", [load_separate, load_one_base])
def test_the_policys_reference_is_in_4_bits_too(base, tmp_path, how):
    tokenizer = separate_pad(load_tokenizer(base))
    reward = load_scalar_model(base, "reward", FOUR, new_head=True, tokenizer=tokenizer, lora=LORA)
    save_model(reward, tokenizer, tmp_path / "reward", None)
    models = how(
        Wanted(
            base,
            RewardPlace(str(tmp_path / "reward")),
            "sft",
            load_tokenizer(base),
            tokenizer,
            FOUR,
            LORA,
            ZeroArguments("0"),
            torch.float32,
        )
    )
    assert torch.equal(logprobs(models.actor), logprobs(models.reference))
    with torch.no_grad():
        assert torch.equal(models.critic(IDS, MASK), torch.zeros(1, 7))
        assert models.reward(IDS, MASK).std() > 0


@needs_bitsandbytes
def test_zero_3_is_refused(base):
    with pytest.raises(UserError, match="does not go with ZeRO-3"):
        build_frozen(
            PolicyModel(load_causal_lm(base, FOUR)), zero=ZeroArguments("3"), dtype=torch.float32
        )


def test_what_cannot_be_held_in_4_bits(base, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="base_4bit needs adapters"):
        load_causal_lm(base, FOUR, LoraArguments())
    model = load_causal_lm(base, ModelArguments(), LORA)
    save_model(model, load_tokenizer(base), tmp_path / "adapters", None)
    with pytest.raises(UserError, match="cannot be merged into a base in 4 bits; merge them first"):
        load_causal_lm(str(tmp_path / "adapters"), FOUR, LORA)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        load_causal_lm(base, FOUR, LORA)
