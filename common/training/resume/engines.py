"""DeepSpeed engines in and out of a checkpoint, on as many ranks as saved it or on others.

DeepSpeed's files are pickled: they are read only after the checkpoint's checksums have matched.
"""

import argparse
import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from common.errors import UserError
from common.training.distributed import barrier, is_main

TAG = "state"
"""DeepSpeed's name for the one checkpoint in a folder."""

FRESH_BYTES = 12
"""Bytes of a trained weight beside the model's own: fp32 weight and AdamW's two moments."""


def save_engine(engine: Any, folder: Path) -> None:
    """Model, optimizer and schedule; frozen weights are left out. A collective."""
    engine.save_checkpoint(
        str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=has_frozen(engine.module)
    )


def load_engine(engine: Any, folder: Path, *, ranks_changed: bool, scratch: Path) -> None:
    """Takes back what `save_engine` wrote. A collective.

    Frozen weights must be in place already: they come from the folder that the run started from.

    Args:
        ranks_changed: another number of ranks saved it. ZeRO's shards are then put together
            first (DeepSpeed's universal checkpoint) and cut anew.
        scratch: a folder for that, beside the checkpoints; deleted afterwards.
    """
    strict = not has_frozen(engine.module)
    if not ranks_changed or engine.zero_optimization_stage() == 0:
        with own_settings(engine):
            _load(engine, folder, strict)
        return
    if is_main():
        _make_universal(folder / TAG, scratch / TAG)
    barrier()
    engine._config.load_universal_checkpoint = True
    try:
        with own_settings(engine):
            _load(engine, scratch, strict)
        _separate_counts(engine)
    finally:
        engine._config.load_universal_checkpoint = False
        barrier()
        if is_main():
            shutil.rmtree(scratch, ignore_errors=True)


def _load(engine: Any, folder: Path, strict: bool) -> None:
    with plain_path(folder) as place:
        path, _ = engine.load_checkpoint(str(place), tag=TAG, load_module_strict=strict)
    # Without files DeepSpeed returns nothing, and would go on from fresh weights.
    if path is None:
        raise UserError(f"{folder}: DeepSpeed finds no checkpoint in it")


def set_rates(engine: Any, peaks: Sequence[float], factor: float) -> None:
    """Learning rates at the schedule's place, of schedules with these peaks × `factor`.

    Args:
        peaks: by parameter group.
    """
    schedule = engine.lr_scheduler
    schedule.base_lrs = [peak * factor for peak in peaks]
    rates = [
        base * share(schedule.last_epoch)
        for base, share in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def has_frozen(model: nn.Module) -> bool:
    """Whether some weights are not trained, as beneath adapters."""
    return any(not p.requires_grad for p in model.parameters())


def trained_weights(engine: Any) -> int:
    """How many weights are trained, over all ranks."""
    parts = [p for p in engine.module.parameters() if p.requires_grad]
    return sum(getattr(p, "ds_numel", p.numel()) for p in parts)


def expected_bytes(engine: Any) -> int:
    """About what `save_engine` will write, over all ranks."""
    parts = [p for p in engine.module.parameters() if p.requires_grad]
    return sum(getattr(p, "ds_numel", p.numel()) * (p.element_size() + FRESH_BYTES) for p in parts)


@contextlib.contextmanager
def own_settings(engine: Any) -> Iterator[None]:
    """Keeps the optimizer's settings while a checkpoint is loaded, which brings its own.

    They are those of this process's command, which may have changed on purpose. And DeepSpeed
    0.19.8 gives all parameter groups of a universal checkpoint those of the first under ZeRO-3
    (biases would begin to decay).
    """
    groups = engine.optimizer.param_groups
    kept = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    clip = getattr(engine.optimizer, "clip_grad", None)
    yield
    for group, settings in zip(engine.optimizer.param_groups, kept, strict=True):
        group.update(settings)
    if clip is not None:
        engine.optimizer.clip_grad = clip


def _separate_counts(engine: Any) -> None:
    """Gives each weight a step count of its own.

    From a universal checkpoint DeepSpeed 0.19.8 gives all of them one tensor under ZeRO-3, which
    every parameter group then advances.
    """
    adam = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for state in adam.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """The folder by a name that DeepSpeed 0.19.8 can read.

    It uses paths as patterns, in which brackets, say, do not stand for themselves.
    """
    with tempfile.TemporaryDirectory(prefix="checkpoint_") as links:
        link = Path(links) / "link"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link


def _make_universal(source: Path, target: Path) -> None:
    """Weights and moments of all ranks' files, each parameter whole in files of its own."""
    from deepspeed.checkpoint import ds_to_universal

    said = io.StringIO()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        with (
            plain_path(source) as source_place,
            plain_path(target) as target_place,
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            settings = argparse.Namespace(
                input_folder=str(source_place),
                output_folder=str(target_place),
                num_extract_workers=1,
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,
            )
            ds_to_universal.main(settings)
    except Exception as error:
        raise UserError(
            f"{source}: DeepSpeed could not convert this checkpoint for another number of ranks "
            f"({type(error).__name__}: {error}); go on with as many ranks as before"
        ) from error
