"""ZeRO configs: what is in the files, what a run merges into them, what the names stand for."""

import pytest
import torch

from common.config.arguments import ZeroArguments
from common.errors import UserError
from common.zero.config import (
    deepspeed_config,
    resolve_dtype,
    resolve_zero,
    zero_of_adapters,
    zero_of_frozen,
)

CPU, NVME = "cpu", "nvme"
SETTINGS = {
    "0": ZeroArguments("0"),
    "1": ZeroArguments("1"),
    "2, optimizer on the host": ZeroArguments("2", CPU),
    "3": ZeroArguments("3"),
    "3, all on the host": ZeroArguments("3", CPU, CPU),
    "3, weights on a disk": ZeroArguments("3", CPU, NVME, "/disk"),
}


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


@pytest.mark.parametrize("name", SETTINGS)
def test_deepspeed_itself_accepts_the_config_and_finds_the_same_batch(name):
    """DeepSpeed checks batch = micro-batch × accumulation × ranks by itself."""
    from deepspeed.runtime.config import DeepSpeedConfig

    zero = SETTINGS[name]
    config = deepspeed_config(
        zero, torch.bfloat16, micro_batch_size=3, accumulation=4, max_grad_norm=0.7
    )
    read = DeepSpeedConfig(config)
    assert (read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps) == (3, 4)
    assert read.train_batch_size == 12
    assert read.gradient_clipping == 0.7
    assert read.zero_optimization_stage == int(name[0])
    assert read.bfloat16_config.enabled
    for found, wanted in (
        (read.zero_config.offload_optimizer, zero.offload_optimizer),
        (read.zero_config.offload_param, zero.offload_parameters),
    ):
        assert (found is None) if wanted == "none" else (found.device == wanted)
    if zero.offload_parameters == NVME:
        assert str(read.zero_config.offload_param.nvme_path) == "/disk"
    assert not deepspeed_config(zero, torch.float32)["bf16"]["enabled"]


def test_batch_sizes_of_several_ranks():
    config = deepspeed_config(
        ZeroArguments("2"),
        torch.float32,
        micro_batch_size=5,
        accumulation=3,
        world_size=4,
        max_grad_norm=2.0,
    )
    assert config["train_micro_batch_size_per_gpu"] == 5
    assert config["gradient_accumulation_steps"] == 3
    assert config["train_batch_size"] == 60
    assert config["gradient_clipping"] == 2.0


def test_each_call_gives_a_config_of_its_own():
    deepspeed_config(ZeroArguments("3"), torch.float32)["zero_optimization"]["stage"] = 1
    assert deepspeed_config(ZeroArguments("3"), torch.float32)["zero_optimization"]["stage"] == 3


def test_weights_that_stay_gathered():
    """ "auto" follows the caller; weights on the host are no longer there if they stay gathered."""
    kept = "stage3_param_persistence_threshold"
    for keep, expected in ((True, 2**40), (False, 10_000)):
        config = deepspeed_config(ZeroArguments("3"), torch.float32, keep_whole=keep)
        assert config["zero_optimization"][kept] == expected
        config = deepspeed_config(ZeroArguments("3", CPU, CPU), torch.float32, keep_whole=keep)
        assert config["zero_optimization"][kept] == 10_000
        assert kept not in deepspeed_config(ZeroArguments("2"), torch.float32)["zero_optimization"]


def test_adapters_are_whole_on_every_rank():
    assert [zero_of_adapters(z) for z in SETTINGS.values()] == [
        ZeroArguments("0"),
        ZeroArguments("1"),
        ZeroArguments("2", CPU),
        ZeroArguments("2"),
        ZeroArguments("2", CPU),
        ZeroArguments("2", CPU),
    ]


def test_frozen_models_have_no_optimizer_to_offload():
    frozen = zero_of_frozen(SETTINGS["3, all on the host"])
    assert frozen == ZeroArguments("3", "none", CPU)


def test_auto_spreads_where_there_are_ranks_to_spread_over_or_a_lever_needs_it():
    assert resolve_zero(ZeroArguments(), 1).zero == "0"
    assert resolve_zero(ZeroArguments(), 2).zero == resolve_zero(ZeroArguments(), 64).zero == "3"
    assert resolve_zero(ZeroArguments(offload_optimizer=CPU), 1) == ZeroArguments("3", CPU)
    for name, settings in SETTINGS.items():
        if "disk" in name:
            continue
        assert resolve_zero(settings, 1) == resolve_zero(settings, 2) == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zero": "0", "offload_optimizer": CPU}, "cpu needs ZeRO-1, 2 or 3, but zero is 0"),
        ({"zero": "2", "offload_parameters": CPU}, "offload_parameters cpu needs ZeRO-3"),
        ({"zero": "2", "offload_optimizer": NVME, "nvme_path": "/d"}, "nvme needs ZeRO-3"),
        ({"zero": "3", "offload_optimizer": NVME}, "offload to nvme needs nvme_path"),
        ({"zero": "1", "quantized_communication": True}, "quantized_communication needs ZeRO-3"),
    ],
)
def test_levers_that_would_do_nothing_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        ZeroArguments(**settings)


def test_a_disk_is_refused_without_a_gpu(no_gpu):
    with pytest.raises(UserError, match="offload to nvme is not done without a GPU"):
        resolve_zero(SETTINGS["3, weights on a disk"], 1)


def test_quantized_communication_is_refused_without_a_gpu(no_gpu):
    with pytest.raises(UserError, match="needs GPUs"):
        resolve_zero(ZeroArguments("3", quantized_communication=True), 2)


def test_quantized_communication_keeps_a_copy_in_each_node(monkeypatch):
    from deepspeed.runtime.config import DeepSpeedConfig

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    settings = ZeroArguments("3", quantized_communication=True)
    read = DeepSpeedConfig(deepspeed_config(settings, torch.bfloat16)).zero_config
    assert read.zero_quantized_weights and read.zero_quantized_gradients
    assert read.zero_hpz_partition_size == 4


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
