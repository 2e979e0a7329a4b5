"""Stage 1 with packed rows against plain training: the same examples, steps and losses.

Plain training puts the examples of a step into random batches, each padded to its longest row,
and calls the language model with labels, as most scripts do. Ours packs whole examples into rows.
No forward of either has more tokens, padding included, than the budget. The two take turns, and
tokens are counted without padding. `python -m common.benchmark.packing --run runs/packing`
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.benchmark.measuring import now
from common.config.arguments import (
    ModelArguments,
    OptimizerArguments,
    RunArguments,
    TextArguments,
    ZeroArguments,
    check_range,
    option,
)
from common.config.parsing import fill_placeholders
from common.data.encoding import EncodedExample, encode_conversations
from common.data.layouts import read_conversations
from common.data.sources import parse_sources
from common.data.template import Template
from common.errors import UserError
from common.files import write_json
from common.models.loading import load_causal_lm, load_tokenizer
from common.models.policy import PolicyModel
from common.models.tiny import TinyArguments, write_tiny_model
from common.training.batching import FILLER, BatchShape, micro_batches, step_indices
from common.training.distributed import device
from common.training.engine import build_engine
from common.training.packing import first_fit
from common.training.padding import right_pad
from common.training.run import run_stage
from common.training.sft import SFTObjective
from common.training.stage import Stage
from common.training.supervised import supervised_step


@dataclass
class PackingBenchmark:
    """What is measured."""

    data: list[str] = option(
        ["{data}/preference/llamafactory_demo/alpaca_en_demo.json"], "conversations to train on"
    )
    budget: int = option(4096, "tokens of a forward, padding included")
    row: int = option(1024, "tokens of a packed row")
    batch: int = option(64, "examples of an optimizer step")
    layers: int = option(4, "decoder layers")
    width: int = option(256, "hidden size")

    def __post_init__(self) -> None:
        check_range(self, 1, "budget", "row", "batch", "layers", "width")


ARGUMENTS = (RunArguments, PackingBenchmark)
"""Every setting; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: PackingBenchmark) -> None:
    """Writes `rows.json`: tokens a second of packed, of padded by us, and of plain training."""
    stage.begin_anew()
    conversations = read_conversations(parse_sources(fill_placeholders(settings.data, run.run)))
    base = stage.folder / "base"
    shape = TinyArguments(settings.layers, settings.width, settings.width // 64, 4096)
    words = (m.content for c in conversations for m in c.messages)
    write_tiny_model(Path(base), words, shape, run.seed, 2048)
    tokenizer = load_tokenizer(str(base))
    texts = TextArguments(max_prompt_tokens=512, max_response_tokens=512)
    examples, _ = encode_conversations(conversations, Template(tokenizer, "ice"), texts)
    steps = len(examples) // settings.batch
    if steps < 2:
        raise UserError(f"{len(examples)} examples are too few: data must fill two steps")

    names = ("packed", "padded", "plain")
    sides = {
        "packed": ours(base, examples, settings, run.seed, settings.row),
        "padded": ours(base, examples, settings, run.seed, 0),
        "plain": plain(base, examples, settings, run.seed),
    }
    seconds = dict.fromkeys(names, 0.0)
    losses: dict[str, list[float]] = {name: [] for name in names}
    for step in range(steps):
        for name, steps_of in sides.items():
            started = now()
            losses[name].append(next(steps_of))
            if step:  # the first warms up
                seconds[name] += now() - started
    tokens = sum(
        len(examples[i].input_ids)
        for step in range(1, steps)
        for i in step_indices(len(examples), settings.batch, run.seed, step)
    )
    rates = {f"{name}_tokens_per_second": tokens / seconds[name] for name in names}
    gaps = (abs(a / b - 1) for a, b in zip(losses["packed"], losses["plain"], strict=True))
    row = {
        **rates,
        "ratio": seconds["plain"] / seconds["packed"],
        "padded_ratio": seconds["plain"] / seconds["padded"],
        "largest_relative_loss_gap": max(gaps),
        "first_loss": losses["plain"][0],
        "last_loss": losses["plain"][-1],
    }
    write_json(stage.folder / "rows.json", [row])
    stage.finish(
        row,
        f"{rates['packed_tokens_per_second']:.0f} tokens a second packed, "
        f"{rates['plain_tokens_per_second']:.0f} plain: {row['ratio']:.2f} times as many; losses "
        f"differ by at most {row['largest_relative_loss_gap']:.1e} of theirs",
    )


def ours(
    base: Path, examples: Sequence[EncodedExample], settings: PackingBenchmark, seed: int, row: int
) -> Iterator[float]:
    """Stage 1's own steps; gives each one's loss.

    Args:
        row: tokens of a packed row; 0 gives each example a row of its own.
    """
    optimizer = _optimizer(settings, rows_per_forward(examples, settings, seed, row))
    policy = PolicyModel(load_causal_lm(str(base), ModelArguments()))
    engine = build_engine(
        policy,
        zero=ZeroArguments("0"),
        dtype=torch.float32,
        optimizer=optimizer,
        total_steps=len(examples) // settings.batch,
    )
    engine.train()
    objective = SFTObjective(examples, pad_id=0, pack_tokens=row)
    for step in range(len(examples) // settings.batch):
        yield supervised_step(engine, objective, optimizer, seed, step + 1)["train/loss"]


def rows_per_forward(
    examples: Sequence[EncodedExample], settings: PackingBenchmark, seed: int, row: int
) -> int:
    """Most examples of a forward, for which no forward of any step goes over the budget.

    Raises:
        UserError: a single row is over it.
    """
    lengths = [len(e.input_ids) for e in examples]
    steps = [
        step_indices(len(lengths), settings.batch, seed, step)
        for step in range(len(lengths) // settings.batch)
    ]

    def size(batch: np.ndarray) -> int:
        sizes = [lengths[i] for i in batch if i != FILLER]
        if not row:
            return len(sizes) * max(sizes)
        rows = first_fit(sizes, max(row, *sizes))
        return len(rows) * max(sum(sizes[i] for i in own) for own in rows)

    for count in sorted(range(1, settings.batch + 1), reverse=True):
        if settings.batch % count:
            continue
        shape = BatchShape(settings.batch, count, 1)
        batches = (b for indices in steps for b in micro_batches(indices, shape, 0, lengths))
        if max(map(size, batches)) <= settings.budget:
            return count
    raise UserError(f"budget is {settings.budget} tokens, but a single row has more")


def plain(
    base: Path, examples: Sequence[EncodedExample], settings: PackingBenchmark, seed: int
) -> Iterator[float]:
    """Random batches with dynamic padding through the language model's own loss."""
    model = load_causal_lm(str(base), ModelArguments()).train().to(device())
    wanted = _optimizer(settings, 1)
    adamw = torch.optim.AdamW(
        model.parameters(),
        lr=wanted.learning_rate,
        betas=(0.9, wanted.adam_beta2),
        weight_decay=0.0,
        foreach=True,
    )
    for step in range(len(examples) // settings.batch):
        indices = step_indices(len(examples), settings.batch, seed, step)
        rows = [examples[i] for i in indices]
        count, total = sum(sum(r.loss_mask[1:]) for r in rows), 0.0
        for batch in by_budget(rows, settings.budget):
            ids, attention = right_pad([r.input_ids for r in batch], 0)
            learned, _ = right_pad([r.loss_mask for r in batch], False)
            labels = ids.masked_fill(~learned.bool(), -100)
            tokens: Any = {"input_ids": ids, "attention_mask": attention, "labels": labels}
            tokens = {name: value.to(device()) for name, value in tokens.items()}
            loss = model(**tokens, num_items_in_batch=count, use_cache=False).loss
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), wanted.max_grad_norm)
        adamw.step()
        adamw.zero_grad()
        yield total


def by_budget(rows: Sequence[EncodedExample], budget: int) -> Iterator[list[EncodedExample]]:
    """Batches of rows as they come, each as large as its padded tokens allow."""
    batch: list[EncodedExample] = []
    for row in rows:
        longest = max(len(r.input_ids) for r in [*batch, row])
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _optimizer(settings: PackingBenchmark, rows: int) -> OptimizerArguments:
    return OptimizerArguments(
        learning_rate=1e-3,
        lr_schedule="constant",
        warmup_ratio=0.0,
        batch_size=settings.batch,
        micro_batch_size=rows,
        evaluations=1,
    )


if __name__ == "__main__":
    run_stage("packing", ARGUMENTS, main)
