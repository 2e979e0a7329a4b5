"""One place where ZeRO stage, batch sizes, precision and clipping become a DeepSpeed config."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.config.arguments import ZeroArguments
from common.errors import UserError
from common.training.distributed import ranks_per_node

CONFIGS = Path(__file__).parent / "configs"

KEPT = "stage3_param_persistence_threshold"
"""DeepSpeed's name for how many elements a weight may have to stay gathered between its uses."""


def resolve_zero(settings: ZeroArguments, world_size: int) -> ZeroArguments:
    """What `auto` stands for: ZeRO-3 on several ranks or where a lever needs it, ZeRO-0 elsewhere.

    Raises:
        UserError: what the machine cannot do.
    """
    gpu = torch.cuda.is_available()
    if settings.quantized_communication and not gpu:
        raise UserError(
            "quantized_communication needs GPUs: DeepSpeed quantizes by CUDA kernels; leave it out"
        )
    if "nvme" in (settings.offload_optimizer, settings.offload_parameters) and not gpu:
        raise UserError("offload to nvme is not done without a GPU; use cpu")
    if settings.zero != "auto":
        return settings
    spread = world_size > 1 or settings.asks_for_spreading
    return replace(settings, zero="3" if spread else "0")


def zero_of_adapters(zero: ZeroArguments) -> ZeroArguments:
    """The config for the few weights of a role on a shared base: they are whole on every rank.

    ZeRO-3 then spreads the base, and their optimizer states and gradients as ZeRO-2 does.
    """
    optimizer = "none" if zero.offload_optimizer == "none" else "cpu"
    return ZeroArguments(str(min(zero.stage, 2)), offload_optimizer=optimizer)


def zero_of_frozen(zero: ZeroArguments) -> ZeroArguments:
    """The config for a model that is not trained: it has no optimizer whose states could go."""
    return replace(zero, offload_optimizer="none")


def resolve_dtype(name: str) -> torch.dtype:
    """`auto` is bf16 on a GPU that computes in it, else fp32 (bf16 on a CPU is ten times slower).

    Raises:
        UserError: bf16 asked for on a GPU that lacks it.
    """
    gpu = torch.cuda.is_available()
    if name == "bf16" and gpu and not torch.cuda.is_bf16_supported():
        raise UserError("dtype is bf16, but this GPU does not compute in bf16; use --dtype fp32")
    if name == "auto":
        name = "bf16" if gpu and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if name == "bf16" else torch.float32


def deepspeed_config(
    zero: ZeroArguments,
    dtype: torch.dtype,
    *,
    micro_batch_size: int = 1,
    accumulation: int = 1,
    world_size: int = 1,
    max_grad_norm: float = 1.0,
    keep_whole: bool = False,
) -> dict[str, Any]:
    """The JSON config `common/zero/configs/{stage}.json`, merged with what a run decides.

    Args:
        zero: resolved.
        dtype: float32 or bfloat16.
        micro_batch_size: sequences per forward on each rank; accumulation: forwards per step.
        keep_whole: under ZeRO-3 every weight stays gathered, where the file says "auto"; otherwise
            the small ones do, and with offload always. A number in the file is left alone.
    """
    config = json.loads((CONFIGS / f"{zero.stage}.json").read_text())
    config |= {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro_batch_size * accumulation * world_size,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "zero_allow_untested_optimizer": True,
        # The CPU build of DeepSpeed's Adam needs a compiler; torch's own does without.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
    spreading = config["zero_optimization"]
    if spreading.get(KEPT) == "auto":
        keep_whole = keep_whole and zero.offload_parameters == "none"
        spreading[KEPT] = 2**40 if keep_whole else 10_000
    for name, to in (("optimizer", zero.offload_optimizer), ("param", zero.offload_parameters)):
        if to != "none":
            spreading[f"offload_{name}"] = {"device": to, "pin_memory": torch.cuda.is_available()}
        if to == "nvme":
            spreading[f"offload_{name}"]["nvme_path"] = zero.nvme_path
    if zero.quantized_communication:
        spreading |= {
            "zero_quantized_weights": True,
            "zero_quantized_nontrainable_weights": True,
            "zero_quantized_gradients": True,
            "zero_hpz_partition_size": ranks_per_node(),
        }
    return config
