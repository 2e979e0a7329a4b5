"""The loop that stages 1 and 2 share: fixed examples, a summed loss, a mean over the whole step."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from common.config.arguments import OptimizerArguments
from common.errors import NotFinite
from common.training.batching import (
    FILLER,
    BatchShape,
    micro_batches,
    step_indices,
    steps_per_epoch,
)
from common.training.distributed import (
    all_reduce_scalars,
    any_rank,
    gather_objects,
)
from common.training.early_stop import EarlyStop
from common.training.engine import optimizer_step
from common.training.loop import Loop
from common.training.sequence import data_rank
from common.training.watchdog import WATCHDOG


class Objective(Protocol):
    """A data set with its loss."""

    lengths: list[int]
    """Tokens of each example: rows of like length are put together."""
    weights: list[float]
    """What each example adds to the number that the mean divides by: its tokens, or the weights of
    its pairs (1 each, where nothing else is said)."""

    def loss(self, model: Any, indices: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the loss over examples (`FILLER` ones add 0), and sums of further statistics."""

    def origin(self, index: int) -> str:
        """Where an example came from, for error messages."""


def total_steps(examples: int, settings: OptimizerArguments) -> int:
    """Optimizer steps of the whole training; `epochs` may be a fraction."""
    return max(1, round(settings.epochs * steps_per_epoch(examples, settings.batch_size)))


def train_supervised(
    loop: Loop,
    engine: Any,
    objective: Objective,
    settings: OptimizerArguments,
    *,
    seed: int,
    evaluate: Callable[[], dict[str, float]],
    early_stop: EarlyStop | None = None,
    title: str,
    shown: bool = True,
    sequence_ranks: int = 1,
) -> dict[str, float]:
    """Trains for `settings.epochs` passes, evaluating `settings.evaluations` times on the way.

    Args:
        evaluate: returns "eval/…" values; a collective that leaves the engine's mode as it was.
        early_stop: sees the evaluations and may end the training.
        title: of the progress bar, which is there when `shown`.
        sequence_ranks: how many ranks share each row.

    Returns:
        the values of the last step, which end with those of the last evaluation.

    Raises:
        what `Loop.run` raises; a loss that is not finite is told with step and examples.
    """
    steps = total_steps(len(objective.lengths), settings)
    epoch = steps_per_epoch(len(objective.lengths), settings.batch_size)
    evaluate_after = {round(steps * i / settings.evaluations) for i in range(settings.evaluations)}

    def take_step(step: int) -> dict[str, float]:
        values = supervised_step(engine, objective, settings, seed, step, sequence_ranks)
        if step in evaluate_after or step == steps:
            WATCHDOG.at(f"the evaluation after step {step}")
            values |= evaluate()
            if early_stop is not None:
                early_stop.see(values, step)
        return values

    engine.train()
    return loop.run(
        steps,
        take_step,
        title=title,
        caption=lambda values: f"loss {values['train/loss']:.3f}",
        ends_epoch=lambda step: step % epoch == 0,
        ended=lambda: early_stop is not None and early_stop.ended,
        shown=shown,
    )


def supervised_step(
    engine: Any,
    objective: Objective,
    settings: OptimizerArguments,
    seed: int,
    step: int,
    sequence_ranks: int = 1,
) -> dict[str, float]:
    """One optimizer step, counted from 1; returns its metrics, over all ranks. A collective."""
    readers = data_rank(sequence_ranks)
    shape = BatchShape(settings.batch_size, settings.micro_batch_size, readers.count)
    indices = step_indices(len(objective.lengths), settings.batch_size, seed, step - 1)
    weight = sum(objective.weights[i] for i in indices if i != FILLER)
    sums: dict[str, Tensor] = {}
    mine = list(micro_batches(indices, shape, readers.number, objective.lengths))

    def micro_loss(batch: np.ndarray) -> Tensor:
        loss, statistics = objective.loss(engine, batch)
        for name, value in {"loss": loss, **statistics}.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
        return loss

    rate = engine.get_lr()[0]
    norm = optimizer_step(
        engine,
        [lambda b=b: micro_loss(b) for b in mine],
        weight,
        f"step {step}",
        lambda total: stop_unless_finite(total, step, objective, mine),
    )
    values = {f"train/{k}": v / (weight or 1.0) for k, v in all_reduce_scalars(sums).items()}
    return values | {"train/learning_rate": rate, "train/grad_norm": norm}


def evaluate_supervised(
    engine: Any, objective: Objective, batch_size: int, sequence_ranks: int = 1
) -> tuple[dict[str, float], float]:
    """Sums of the loss and statistics over a whole data set, over all ranks. A collective.

    Args:
        batch_size: examples per forward on each rank.
        sequence_ranks: how many ranks share each row.

    Returns:
        sums by name ("loss" and the objective's statistics), and the weight to divide them by.
    """
    sums: dict[str, Tensor] = {}
    engine.eval()
    with torch.no_grad():
        for mine in scoring_batches(objective.lengths, batch_size, sequence_ranks):
            loss, statistics = objective.loss(engine, mine)
            for name, value in {"loss": loss, **statistics}.items():
                sums[name] = sums.get(name, 0.0) + value
    engine.train()
    return all_reduce_scalars(sums), float(sum(objective.weights))


@torch.no_grad()
def held_out_means(engine: Any, objective: Objective, batch_size: int) -> dict[str, float]:
    """Means by name, "eval/loss" and so on (see `evaluate_supervised`). A collective."""
    sums, count = evaluate_supervised(engine, objective, batch_size)
    return {f"eval/{name}": value / count for name, value in sums.items()}


@torch.no_grad()
def score_examples(
    engine: Any,
    lengths: Sequence[int],
    sizes: Sequence[int],
    batch_size: int,
    score: Callable[[np.ndarray], Sequence[Any]],
) -> list[list[Any]]:
    """Values of every example of a data set, in its order, on every rank. A collective.

    Args:
        lengths, sizes: tokens of each example, and how many values it has.
        batch_size: examples per forward on each rank.
        score: the values of a batch of examples, one after another; `FILLER` stands for the first.
    """
    engine.eval()
    found: dict[int, list[Any]] = {}
    for mine in scoring_batches(lengths, batch_size):
        values = iter(score(mine))
        for i in mine.tolist():
            part = [next(values) for _ in range(sizes[max(i, 0)])]
            if i != FILLER:
                found[i] = part
    engine.train()
    merged: dict[int, list[Any]] = {}
    for part in gather_objects(found):
        merged |= part  # type: ignore[operator]
    return [merged[i] for i in range(len(lengths))]


def scoring_batches(
    lengths: Sequence[int], batch_size: int, sequence_ranks: int = 1
) -> Iterator[np.ndarray]:
    """This rank's batches of one pass over a whole data set, `[batch_size]` indices each.

    Examples of like length are together; `FILLER` ones give all ranks equally many batches.

    Args:
        sequence_ranks: how many ranks share each row.
    """
    readers = data_rank(sequence_ranks)
    width = batch_size * readers.count
    order = np.array(sorted(range(len(lengths)), key=lambda i: lengths[i]))
    order = np.pad(order, (0, -len(lengths) % width), constant_values=FILLER)
    for start in range(0, len(order), width):
        WATCHDOG.alive()
        yield order[start : start + width][readers.number :: readers.count]


def stop_unless_finite(
    total: Tensor, step: int, objective: Objective, batches: list[np.ndarray]
) -> None:
    """Raises NotFinite on every rank when the loss is NaN or infinite on any. A collective."""
    value = float(total)
    if not any_rank(not math.isfinite(value)):
        return
    places = [objective.origin(int(i)) for b in batches for i in b if i != FILLER]
    # Only rank 0 prints: it must know what the rank with the bad loss has read.
    bad = [(v, p) for v, p in gather_objects((value, places)) if not math.isfinite(v)]
    names = list(dict.fromkeys(name for _, part in bad for name in part))
    shown = ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")
    raise NotFinite(
        f"the loss is {bad[0][0]} at step {step}; nothing was saved. Its examples: {shown}. Lower "
        "learning_rate, raise warmup_ratio, or look at these examples"
    )
