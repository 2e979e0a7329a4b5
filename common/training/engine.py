"""DeepSpeed engines: building them, one optimizer step, and reading whole weights back."""

import contextlib
import importlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.config.arguments import OptimizerArguments, ZeroArguments
from common.errors import NotFinite, UserError
from common.training.batching import BatchShape
from common.training.distributed import any_rank, device, free_memory, is_main, world_size
from common.training.sequence import data_rank
from common.training.watchdog import WATCHDOG
from common.zero.config import KEPT, deepspeed_config, zero_of_frozen

WHOLE_SHARE = 0.05
"""Share of the free memory that a model's weights may take to stay whole on every rank under
ZeRO-3, as four models may do; optimizer states and gradients are spread all the same."""


MINUTES_FOR_THE_WATCHDOG = 5.0
"""Collectives wait this much longer than a step may take: the watchdog knows what was done."""


@contextlib.contextmanager
def process_group(step_minutes: float = 30.0) -> Iterator[None]:
    """The ranks' process group for the length of a `main`; torn down whatever happens.

    Without the tear-down, gloo's threads end the process with "terminate called" and code −6.
    """
    import deepspeed

    # Its functions have the default group as a default argument, read at the first import. A
    # library that imported it later would keep the group, and gloo's threads, until the
    # interpreter ends, where a thread that is still tidying up aborts the process.
    importlib.import_module("torch.distributed.nn.functional")

    if not torch.cuda.is_available():
        # DeepSpeed would compile a shared-memory collective at start-up (half a minute, needs a
        # C++ compiler). Only its inference all-reduce uses it, and nothing here calls that.
        deepspeed.ops.__compatible_ops__ = {}
        threads = os.environ.get("OMP_NUM_THREADS")
        if threads:
            torch.set_num_threads(int(threads))
    else:
        torch.cuda.set_device(device())
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        os.environ.setdefault(name, value)
    deepspeed.init_distributed(
        dist_backend="nccl" if torch.cuda.is_available() else "gloo",
        timeout=timedelta(minutes=step_minutes + MINUTES_FOR_THE_WATCHDOG),
        auto_mpi_discovery=False,
        verbose=False,
    )
    try:
        yield
    finally:
        # Engines hold work handles of their collectives: let go of them before the group goes.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def build_engine(
    model: nn.Module,
    *,
    zero: ZeroArguments,
    dtype: torch.dtype,
    optimizer: OptimizerArguments,
    total_steps: int,
    new_modules: Sequence[str] = (),
    new_rate: float | None = None,
    adam_eps: float = 1e-8,
    whole: bool | None = False,
    sequence_ranks: int = 1,
) -> Any:
    """A DeepSpeed engine that trains `model` with AdamW and a warm-up schedule.

    Args:
        model: on any device; DeepSpeed moves (and under ZeRO-3 partitions) it.
        total_steps: optimizer steps of the whole training, for the schedule.
        new_modules: names of freshly initialized modules (heads), which get no weight decay.
        new_rate: peak learning rate of these, where it is another.
        whole: under ZeRO-3, whether weights stay whole between uses; None: where they fit. It pays
            where several forwards lie between two updates, as in PPO; with one, it costs a fifth.
        sequence_ranks: how many ranks share each row.

    Returns:
        `deepspeed.DeepSpeedEngine`.
    """
    import deepspeed

    WATCHDOG.at(f"loading a {type(model).__name__} into DeepSpeed's engine")
    check_quantized(model, zero)
    shape = BatchShape(
        optimizer.batch_size, optimizer.micro_batch_size, data_rank(sequence_ranks).count
    )
    groups = parameter_groups(model, optimizer.weight_decay, new_modules, new_rate)
    adam = {"lr": optimizer.learning_rate, "betas": (0.9, optimizer.adam_beta2), "eps": adam_eps}
    on_host = zero.offload_optimizer != "none" and torch.cuda.is_available()
    adamw = (host_adamw if on_host else partial(torch.optim.AdamW, foreach=True))(groups, **adam)
    engine, *_ = deepspeed.initialize(
        model=in_precision(model, dtype),
        optimizer=adamw,
        lr_scheduler=lambda opt: lr_schedule(opt, optimizer, total_steps),
        config=deepspeed_config(
            zero,
            dtype,
            micro_batch_size=shape.micro_batch_size,
            accumulation=shape.accumulation,
            world_size=world_size(),
            max_grad_norm=optimizer.max_grad_norm,
            keep_whole=fits_whole(model, dtype) if whole is None else whole,
        ),
    )
    return engine


def host_adamw(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.Optimizer:  # noqa: ANN401
    """DeepSpeed's AdamW, for states in the host's memory.

    Raises:
        UserError: it cannot be compiled (ZeRO-3 refuses PyTorch's).
    """
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    try:
        return DeepSpeedCPUAdam(groups, adamw_mode=True, **settings)
    except Exception as error:  # of the compiler, of a missing header, of versions that differ
        raise UserError(
            "offload_optimizer: DeepSpeed's CPU Adam cannot be compiled here "
            f"({type(error).__name__}: {error}); it needs a C++ compiler, ninja and the CUDA "
            "toolkit that PyTorch was built with (`ds_report` says what is missing)"
        ) from error


def build_frozen(model: nn.Module, *, zero: ZeroArguments, dtype: torch.dtype) -> nn.Module:
    """A model that only scores (reference, reward): sharded by ZeRO-3 where that saves much.

    With offloaded weights it is so on one rank, too.
    """
    import deepspeed

    WATCHDOG.at(f"loading a frozen {type(model).__name__}")
    check_quantized(model, zero)
    model = in_precision(model, dtype).eval().requires_grad_(False)
    offload = zero.offload_parameters != "none"
    if zero.stage < 3 or (world_size() == 1 and not offload):
        return model.to(device())
    config = deepspeed_config(
        zero_of_frozen(zero), dtype, world_size=world_size(), keep_whole=fits_whole(model, dtype)
    )
    if max(p.numel() for p in model.parameters()) <= config["zero_optimization"][KEPT]:
        return model.to(device())  # all of it would stay gathered
    engine, *_ = deepspeed.initialize(model=model, config=config)
    engine.eval()  # returns nothing, unlike a module's
    return engine


def in_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model with its weights in `dtype`; buffers stay as they are.

    `Module.to` would round the frequencies of rotary embeddings, too: in bf16 a token's angle is
    then off by a radian from the 500th place on.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return model


def check_quantized(model: nn.Module, zero: ZeroArguments) -> None:
    """Raises UserError where ZeRO-3 would cut up weights in 4 bits, which it cannot put together.

    Their scales are no parameters, and would be left behind.
    """
    if zero.stage == 3 and not all(p.is_floating_point() for p in model.parameters()):
        raise UserError("base_4bit does not go with ZeRO-3: use --zero 2 (or 1, or 0)")


def fits_whole(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether all weights can stay on every rank, not to be gathered at each use. A collective."""
    needed = sum(p.numel() for p in model.parameters()) * dtype.itemsize
    return not any_rank(needed > WHOLE_SHARE * free_memory())


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    new_modules: Sequence[str] = (),
    new_rate: float | None = None,
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay; biases, norms and new heads do not.

    With a learning rate of their own (`new_rate`), new heads are a third.

    Raises:
        UserError: nothing is trainable.
    """
    decayed, plain, new = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_new = any(part in name.split(".") for part in new_modules)
        if is_new and new_rate is not None:
            new.append(parameter)
        else:
            (plain if parameter.ndim < 2 or is_new else decayed).append(parameter)
    if not decayed and not plain and not new:
        raise UserError("the model has no trainable parameter")
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
        {"params": new, "weight_decay": 0.0, "lr": new_rate},
    ]
    return [g for g in groups if g["params"]]


def lr_schedule(
    adamw: torch.optim.Optimizer, settings: OptimizerArguments, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then constant, linear or cosine decay to `lr_floor` × peak."""
    from transformers import get_constant_schedule_with_warmup
    from transformers.optimization import (
        get_cosine_with_min_lr_schedule_with_warmup,
        get_polynomial_decay_schedule_with_warmup,
    )

    warmup = int(settings.warmup_ratio * total_steps)
    total = max(total_steps, warmup + 1)
    flat = settings.lr_floor >= 1.0 or settings.learning_rate == 0.0
    if settings.lr_schedule == "constant" or flat:
        return get_constant_schedule_with_warmup(adamw, warmup)
    if settings.lr_schedule == "linear":
        floor = max(settings.lr_floor, 1e-6) * settings.learning_rate
        return get_polynomial_decay_schedule_with_warmup(adamw, warmup, total, lr_end=floor)
    return get_cosine_with_min_lr_schedule_with_warmup(
        adamw, warmup, total, min_lr_rate=settings.lr_floor
    )


def optimizer_step(
    engine: Any,
    micro_losses: Iterable[Callable[[], Tensor]],
    count: float,
    place: str,
    check: Callable[[Tensor], None] = lambda total: None,
) -> float:
    """One optimizer step whose gradient is Σ over all tokens of all ranks / `count`.

    DeepSpeed averages over accumulation steps and over ranks, so each local sum is multiplied by
    both first: the gradient is then the same on one rank and on two.

    Args:
        micro_losses: exactly `gradient_accumulation_steps` functions, each returning the *sum* of
            the loss over its rows (or tokens), of a forward of its own.
        count: what the mean divides by: rows, tokens or weights of the whole step, over all ranks.
        place: which step this is, for the error.
        check: called with this rank's loss sum after the step; may raise. (Between two steps the
            engine holds no gradients, and can be put back.)

    Returns:
        the gradient norm before clipping, over all ranks.

    Raises:
        NotFinite: the gradient is not finite; on all ranks, as the norm is theirs.
    """
    scale = engine.gradient_accumulation_steps() * world_size() / (count or 1.0)
    total: Tensor | None = None
    for i, micro_loss in enumerate(micro_losses, start=1):
        loss = micro_loss()
        total = loss.detach() if total is None else total + loss.detach()
        engine.backward(loss * scale)
        if i == engine.gradient_accumulation_steps():
            norm = gradient_norm(engine)
        engine.step()
    check(total)
    reported = engine.get_global_grad_norm()
    norm = float(norm if reported is None else reported)
    if not 0 <= norm < math.inf:
        raise NotFinite(
            f"the gradient's norm is {norm} at {place}, though the loss is finite; the model was "
            "not saved. Lower the learning rate, or raise warmup_ratio"
        )
    return norm


def gradient_norm(engine: Any) -> float:
    """Norm of the reduced gradients where DeepSpeed keeps none itself (ZeRO-0 in fp32), else 0."""
    if engine.zero_optimization_stage() > 0:
        return 0.0
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


@contextlib.contextmanager
def gathered_parameters(model: nn.Module) -> Iterator[None]:
    """All of `model`'s weights whole on every rank, whatever the ZeRO stage. A collective.

    Those that are whole anyway stay so afterwards.
    """
    import deepspeed

    spread = spread_parameters(model)
    if not spread:
        yield
        return
    with deepspeed.zero.GatheredParameters(spread):
        yield


@contextlib.contextmanager
def whole_on_host(model: nn.Module) -> Iterator[None]:
    """All of `model`'s weights whole on the first rank, to be saved. A collective.

    Those that ZeRO-3 spreads are gathered one at a time, and lie in the host's memory meanwhile:
    a model that fits on no card can be saved. Beneath adapters, which are saved alone, frozen
    weights stay where they are.
    """
    import deepspeed

    spread = spread_parameters(model)
    trained = [p for p in spread if p.requires_grad]
    held: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter in trained or spread:
            WATCHDOG.alive()
            with deepspeed.zero.GatheredParameters([parameter]):
                whole = parameter.detach().to("cpu", copy=True) if is_main() else None
            if whole is not None:
                held.append((parameter, parameter.data))
                parameter.data = whole
        yield
    finally:
        for parameter, shard in held:
            parameter.data = shard


def spread_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Those that ZeRO-3 has spread over the ranks, and not gathered."""
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    spread = [p for p in model.parameters() if hasattr(p, "ds_id")]
    return [p for p in spread if p.ds_status != ZeroParamStatus.AVAILABLE]
