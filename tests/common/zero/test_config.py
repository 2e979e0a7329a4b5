"""ZeRO configs: what is in the files, what a run merges into them, what the names stand for."""

import pytest
import torch

from common.errors import UserError
from common.zero.config import (
    CONFIGS,
    deepspeed_config,
    resolve_dtype,
    resolve_zero,
    zero_of_adapters,
    zero_stage,
)

STAGES = {"0": 0, "2": 2, "3": 3, "3_offload": 3}


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that this machine has a GPU, which computes in bf16 if asked to."""

    def pretend(bf16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: bf16)

    return pretend


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_there_is_a_file_for_every_name():
    assert {path.stem for path in CONFIGS.glob("*.json")} == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_config_holds_its_stage(name):
    config = deepspeed_config(name, torch.float32)
    assert config["zero_optimization"]["stage"] == zero_stage(name) == STAGES[name]
    assert not config["bf16"]["enabled"]


@pytest.mark.parametrize("name", STAGES)
def test_deepspeed_itself_accepts_the_config_and_finds_the_same_batch(name):
    """DeepSpeed checks batch = micro-batch × accumulation × ranks by itself."""
    from deepspeed.runtime.config import DeepSpeedConfig

    config = deepspeed_config(
        name, torch.bfloat16, micro_batch_size=3, accumulation=4, max_grad_norm=0.7
    )
    read = DeepSpeedConfig(config)
    assert (read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps) == (3, 4)
    assert read.train_batch_size == 12
    assert read.gradient_clipping == 0.7
    assert read.zero_optimization_stage == STAGES[name]
    assert read.bfloat16_config.enabled
    offload = read.zero_config.offload_optimizer
    assert (offload is not None and offload.device == "cpu") == (name == "3_offload")
    param = read.zero_config.offload_param
    assert (param is not None and param.device == "cpu") == (name == "3_offload")


def test_batch_sizes_of_several_ranks():
    config = deepspeed_config(
        "2", torch.float32, micro_batch_size=5, accumulation=3, world_size=4, max_grad_norm=2.0
    )
    assert config["train_micro_batch_size_per_gpu"] == 5
    assert config["gradient_accumulation_steps"] == 3
    assert config["train_batch_size"] == 60
    assert config["gradient_clipping"] == 2.0


def test_each_call_gives_a_config_of_its_own():
    deepspeed_config("3", torch.float32)["zero_optimization"]["stage"] = 1
    assert deepspeed_config("3", torch.float32)["zero_optimization"]["stage"] == 3


def test_weights_that_stay_gathered():
    """ "auto" follows the caller; the file of the offloading config has a number of its own."""
    kept = "stage3_param_persistence_threshold"
    for keep, expected in ((True, 2**40), (False, 10_000)):
        config = deepspeed_config("3", torch.float32, keep_whole=keep)
        assert config["zero_optimization"][kept] == expected
        config = deepspeed_config("3_offload", torch.float32, keep_whole=keep)
        assert config["zero_optimization"][kept] == 10_000
        assert kept not in deepspeed_config("2", torch.float32)["zero_optimization"]


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'4'; there are: 0, 2, 3, 3_offload"):
        deepspeed_config("4", torch.float32)


def test_adapters_are_whole_on_every_rank():
    assert [zero_of_adapters(name) for name in ("0", "2", "3", "3_offload")] == ["0", "2", "2", "2"]


def test_auto_spreads_only_where_there_are_ranks_to_spread_over():
    assert resolve_zero("auto", 1) == "0"
    assert resolve_zero("auto", 2) == resolve_zero("auto", 64) == "3"
    for name in STAGES:
        assert resolve_zero(name, 1) == resolve_zero(name, 2) == name


def test_dtype_on_a_cpu(no_gpu):
    assert resolve_dtype("auto") == resolve_dtype("fp32") == torch.float32
    assert resolve_dtype("bf16") == torch.bfloat16


def test_dtype_on_a_gpu_with_bf16(gpu):
    gpu(bf16=True)
    assert resolve_dtype("auto") == resolve_dtype("bf16") == torch.bfloat16
    assert resolve_dtype("fp32") == torch.float32


def test_dtype_on_a_gpu_without_bf16(gpu):
    gpu(bf16=False)
    assert resolve_dtype("auto") == torch.float32
    with pytest.raises(UserError, match="--dtype fp32"):
        resolve_dtype("bf16")
