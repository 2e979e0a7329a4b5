"""What bf16 may round, and what it may not."""

import pytest
import torch

from common.config.arguments import ModelArguments, OptimizerArguments
from common.models.loading import load_causal_lm
from common.training.engine import build_engine, build_frozen, in_precision
from tests.models import WIDTH, save_tiny, tiny_causal_lm
from tests.ranks import run_ranks, zero_of

HEAD = WIDTH // 2
"""Width of one of the tiny model's two heads."""


def frequencies():
    """θ_i = 10000^(−2i/d) of rotary embeddings (https://arxiv.org/abs/2104.09864, §3.2.2)."""
    return [10000.0 ** (-2 * i / HEAD) for i in range(HEAD // 2)]


def rotary(model):
    return model.model.rotary_emb.inv_freq


def test_weights_are_rounded_and_frequencies_are_not():
    model = tiny_causal_lm("llama")
    weight = model.lm_head.weight.clone()
    assert in_precision(model, torch.bfloat16) is model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.lm_head.weight, weight.bfloat16())
    assert model.lm_head.weight is model.model.embed_tokens.weight  # still tied
    assert rotary(model).tolist() == pytest.approx(frequencies(), rel=1e-6)


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_models_are_read_in_the_precision_that_they_are_used_in(tmp_path, dtype, expected):
    path = str(save_tiny(tmp_path))
    model = load_causal_lm(path, ModelArguments(dtype=dtype))
    assert {p.dtype for p in model.parameters()} == {expected}
    assert rotary(model).tolist() == pytest.approx(frequencies(), rel=1e-6)


def frequencies_in_engines(path):
    found = []
    for zero in (zero_of("0"), zero_of("2"), zero_of("3")):
        for build in (trained, frozen):
            engine = build(load_causal_lm(path, ModelArguments(dtype="bf16")), zero)
            found.append(rotary(getattr(engine, "module", engine)).tolist())
    return found


def trained(model, zero):
    optimizer = OptimizerArguments(batch_size=1, micro_batch_size=1)
    return build_engine(model, zero=zero, dtype=torch.bfloat16, optimizer=optimizer, total_steps=1)


def frozen(model, zero):
    return build_frozen(model, zero=zero, dtype=torch.bfloat16)


def test_engines_do_not_round_frequencies_either(tmp_path):
    (found,) = run_ranks(frequencies_in_engines, 1, str(save_tiny(tmp_path)))
    assert len(found) == 6
    for engine in found:
        assert engine == pytest.approx(frequencies(), rel=1e-6)
