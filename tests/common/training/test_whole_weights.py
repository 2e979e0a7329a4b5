"""ZeRO-3 for models that are small beside the memory: their weights stay whole on every rank."""

from pathlib import Path

import pytest
import torch
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

from common.config.arguments import ModelArguments, OptimizerArguments, ZeroArguments
from common.hybrid_engine.phases import generation_phase
from common.models.loading import load_causal_lm, load_tokenizer, save_model
from common.models.policy import PolicyModel
from common.training import engine as engine_module
from common.training.distributed import rank
from common.training.engine import (
    WHOLE_SHARE,
    build_engine,
    build_frozen,
    fits_whole,
    gathered_parameters,
    optimizer_step,
    process_group,
    whole_on_host,
)
from tests.models import save_tiny, tiny_causal_lm
from tests.ranks import run_ranks, shard_everything

IDS = torch.tensor([[1, 9, 30, 77, 8], [1, 60, 61, 62, 63]])


def trained(folder, zero):
    """Weights after two steps, how many are whole in between, and how many are spread."""
    engine = build_engine(
        PolicyModel(load_causal_lm(folder, ModelArguments())),
        zero=ZeroArguments(zero),
        dtype=torch.float32,
        optimizer=OptimizerArguments(
            learning_rate=1e-2, batch_size=2, micro_batch_size=1, warmup_ratio=0.0
        ),
        total_steps=4,
        whole=None,
    )
    ids = IDS[rank() : rank() + 1]
    mask = torch.ones_like(ids).bool()
    wanted = mask.clone()
    wanted[:, 0] = False
    kept = []
    for _ in range(2):
        with generation_phase(engine) as model, torch.no_grad():
            model(ids)
        engine.train()
        optimizer_step(engine, [lambda: -engine(ids, mask, wanted).logprobs.sum()], 8.0, "")
        parameters = list(engine.module.parameters())
        kept.append([getattr(p, "ds_status", None) for p in parameters])
    with gathered_parameters(engine.module):
        whole = [p.detach().clone() for p in parameters]
    held = sum(p.ds_tensor.numel() for p in parameters) if zero == "3" else 0
    return whole, kept, held


def on_two_ranks(folder):
    with process_group():
        frozen = build_frozen(tiny_causal_lm("llama"), zero=ZeroArguments("3"), dtype=torch.float32)
        return {
            "2": trained(folder, "2"),
            "3": trained(folder, "3"),
            "frozen": (
                type(frozen).__name__,
                any(hasattr(p, "ds_id") for p in frozen.parameters()),
            ),
            "saved": saved(folder),
        }


def saved(folder):
    """Under ZeRO-3 with every weight spread: where weights are while and after they are saved."""
    shard_everything()
    engine = build_engine(
        PolicyModel(load_causal_lm(folder, ModelArguments())),
        zero=ZeroArguments("3"),
        dtype=torch.float32,
        optimizer=OptimizerArguments(batch_size=2, micro_batch_size=1),
        total_steps=4,
    )
    parameters = list(engine.module.parameters())
    with whole_on_host(engine.module):
        during = [p.numel() for p in parameters]
    after = [p.numel() for p in parameters]
    save_model(engine, load_tokenizer(folder), Path(f"{folder}_saved"), None)
    ids = IDS[rank() : rank() + 1]
    mask = torch.ones_like(ids).bool()
    with torch.no_grad():
        return during, after, [p.ds_numel for p in parameters], engine(ids, mask, mask).logprobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("models") / "m"))


@pytest.fixture(scope="module")
def found(folder):
    return run_ranks(on_two_ranks, 2, folder, start_group=False)


def test_weights_stay_whole_and_are_the_trained_ones(found):
    for answer in found:
        whole, kept, held = answer["3"]
        for a, b in zip(whole, answer["2"][0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        for statuses in kept:
            assert all(s == ZeroParamStatus.AVAILABLE for s in statuses)
        # What the optimizer works on is spread all the same.
        assert held == pytest.approx(sum(p.numel() for p in whole) / 2, rel=0.02)


def test_a_frozen_model_that_would_stay_whole_is_a_plain_one(found):
    for answer in found:
        assert answer["frozen"] == ("LlamaForCausalLM", False)


def test_a_spread_model_is_whole_on_the_first_rank_alone_to_be_saved(found, folder):
    plain, again = (
        PolicyModel(load_causal_lm(f, ModelArguments())) for f in (folder, f"{folder}_saved")
    )
    for number, answer in enumerate(found):
        during, after, sizes, logprobs = answer["saved"]
        assert during == (sizes if number == 0 else [0] * len(sizes))
        assert after == [0] * len(sizes)
        ids = IDS[number : number + 1]
        mask = torch.ones_like(ids).bool()
        expected = plain(ids, mask, mask).logprobs.detach()
        torch.testing.assert_close(logprobs, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_is_small_beside_the_memory(monkeypatch):
    model = tiny_causal_lm("llama")
    size = sum(p.numel() for p in model.parameters())
    for dtype, width in ((torch.float32, 4), (torch.bfloat16, 2)):
        for factor, fits in ((1.01, True), (0.99, False)):
            free = int(size * width / WHOLE_SHARE * factor)
            monkeypatch.setattr(engine_module, "free_memory", lambda free=free: free)
            assert fits_whole(model, dtype) == fits
