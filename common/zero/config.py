"""One place where ZeRO stage, batch sizes, precision and clipping become a DeepSpeed config."""

import json
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError

CONFIGS = Path(__file__).parent / "configs"

KEPT = "stage3_param_persistence_threshold"
"""DeepSpeed's name for how many elements a weight may have to stay gathered between its uses."""


def resolve_zero(name: str, world_size: int) -> str:
    """What `auto` stands for: ZeRO 0 on one rank (nothing to spread), ZeRO 3 on several."""
    if name != "auto":
        return name
    return "0" if world_size == 1 else "3"


def zero_stage(name: str) -> int:
    """The stage (0, 2 or 3) of a resolved config name."""
    return int(name.split("_")[0])


def zero_of_adapters(zero: str) -> str:
    """The config for the few weights of a role on a shared base: they are whole on every rank.

    ZeRO-3 then spreads the base, and their optimizer states and gradients as ZeRO-2 does.
    """
    return "2" if zero_stage(zero) == 3 else zero


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
    zero: str,
    dtype: torch.dtype,
    *,
    micro_batch_size: int = 1,
    accumulation: int = 1,
    world_size: int = 1,
    max_grad_norm: float = 1.0,
    keep_whole: bool = False,
) -> dict[str, Any]:
    """The JSON config `common/zero/configs/{zero}.json`, merged with what a run decides.

    Args:
        zero: a resolved name: 0, 2, 3 or 3_offload.
        dtype: float32 or bfloat16.
        micro_batch_size: sequences per forward on each rank; accumulation: forwards per step.
        keep_whole: under ZeRO-3 every weight stays gathered, where the file says "auto"; otherwise
            the small ones do. A number in the file is left alone.

    Raises:
        UserError: no config of that name.
    """
    path = CONFIGS / f"{zero}.json"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.json")))
        raise UserError(f"no ZeRO config '{zero}'; there are: {names}")
    config = json.loads(path.read_text())
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
    if config["zero_optimization"].get(KEPT) == "auto":
        config["zero_optimization"][KEPT] = 2**40 if keep_whole else 10_000
    return config
