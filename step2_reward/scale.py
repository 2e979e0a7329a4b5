"""Accuracy of the reward model against its size and against the amount of data (paper §3.3.4).

Trains it as `main.py` does, once for every size and every share of the training prompts. A smaller
share is part of a larger, and all are tested on the same held-out prompts. What is finished is not
done again: the same command goes on, with a size more as well.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.config.arguments import option
from common.config.parsing import resolved_settings, result_settings
from common.data.ad_moderation.rankings import ranked_answers
from common.errors import UserError
from common.files import write_json_lines, write_text
from common.reward.charts import scale_chart
from common.training.distributed import barrier, broadcast_object, is_main
from common.training.once_per_node import once_per_node
from common.training.preferences import load_pairs, split_pairs
from common.training.run import run_stage
from common.training.seeding import seed_global
from common.training.stage import Finished, Stage
from step2_reward import main as reward_stage
from step2_reward.scale_report import line_of, report, row_of
from step2_reward.sizes import Size, base_folder, count_parameters, parse_sizes, with_changes


@dataclass
class ScaleArguments:
    """What is compared."""

    sizes: list[str] = option(
        ["tiny:1x32", "tiny:2x64", "tiny:3x128"],
        "models to start from: folders, hub names, or tiny:LAYERSxWIDTH with random weights; or "
        "mappings with path, name and settings of the stage, as a learning_rate of its own",
    )
    fractions: str = option("0.25,0.5,1", "shares of the training prompts, with commas between")
    embedded_prompts: int = option(
        600, "without data and without pairs in the run: prompts of the embedded domain"
    )


ARGUMENTS = (*reward_stage.ARGUMENTS, ScaleArguments)
"""Every setting of stage 2's training, and what is compared."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    size: Size
    fraction: float
    base: str
    """Folder or hub name that it starts from."""
    parameters: int

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.size.name}, {100 * self.fraction:.4g}% of the prompts"


def main(stage: Stage, *groups: Any) -> None:  # noqa: ANN401
    """Trains every cell that is not done, then draws them all."""
    *settings, scale = groups
    sizes, fractions = parse_sizes(scale.sizes, settings), parse_fractions(scale.fractions)
    stage.begin_anew()
    settings = with_data(stage, settings, scale)
    cells = list(cells_of(stage, settings, sizes, fractions))
    rows = []
    for number, cell in enumerate(cells, start=1):
        result, fresh = train_cell(stage, settings, cell)
        rows.append(row_of(cell.size.name, cell.parameters, cell.fraction, result))
        stage.say(f"{number} of {len(cells)}: {line_of(rows[-1])}" + " (done before)" * (not fresh))
    files = [stage.folder / "scale.png", stage.folder / "scale.md"]
    if is_main():
        files[0].write_bytes(scale_chart(rows))
        write_text(files[1], report(rows))
    best = max(rows, key=lambda row: row["accuracy"]["value"])
    stage.finish(
        {"cells": rows},
        f"best held-out accuracy {best['accuracy']['value']:.3f} ({best['size']}, "
        f"{100 * best['fraction']:.4g}% of the prompts), see {files[1]}",
        outputs=files,
    )


def parse_fractions(text: str) -> list[float]:
    """Shares in rising order.

    Raises:
        UserError: one that is no number in (0, 1].
    """
    try:
        shares = sorted({float(part) for part in text.replace(",", " ").split()})
    except ValueError:
        shares = []
    if not shares or not 0 < shares[0] <= shares[-1] <= 1:
        raise UserError(f"fractions is '{text}', but must be numbers in (0, 1], as 0.25,0.5,1")
    return shares


def with_data(stage: Stage, settings: Sequence[Any], scale: ScaleArguments) -> list[Any]:
    """The settings with the embedded domain's rankings for data, where there is none."""
    source = settings[1]
    if source.data or (stage.root / "pairs" / "pairs.jsonl").is_file():
        return list(settings)
    file = stage.folder / "embedded.jsonl"
    stage.say(
        f"no data, and no pairs in {stage.root}: answers to {scale.embedded_prompts} prompts of "
        "the embedded domain, ranked by simulated labelers"
    )
    if is_main():
        write_json_lines(file, ranked_answers(scale.embedded_prompts, seed=stage.run.seed))
    barrier()
    return with_changes(settings, {"data": [str(file)]})


def cells_of(
    stage: Stage, settings: Sequence[Any], sizes: Sequence[Size], fractions: Sequence[float]
) -> Iterator[Cell]:
    """Every size with every share, small before large."""
    _, source, _, model_settings, text, *_ = settings
    pairs, _ = once_per_node(lambda: load_pairs(stage, source))
    train, _ = split_pairs(pairs, source.eval_fraction, stage.run.seed)
    texts = [t for p in train for t in (*(m.content for m in p.messages), p.chosen, p.rejected)]
    for size in sizes:
        base = base_folder(size, stage.folder / "bases", texts, text, stage.run.seed)
        parameters = count_parameters(base, model_settings)
        for fraction in fractions:
            yield Cell(size, fraction, base, parameters)


def train_cell(stage: Stage, settings: Sequence[Any], cell: Cell) -> tuple[dict[str, Any], bool]:
    """The result of one cell's reward stage, and whether it was trained now. A collective.

    What the stage prints goes into the cell's `log.txt`.
    """
    root = stage.folder / "cells" / cell.size.name / f"{cell.fraction:g}"
    changes = {"model": cell.base, "train_fraction": cell.fraction, **cell.size.changes}
    run, *rest = with_changes(settings, changes)
    quiet = {"progress": False, "push_to_hub": False, "on_change": "rerun"}
    groups = [replace(run, run=str(root), **quiet), *rest]
    if is_main():
        link_pairs(stage.root, root)
    barrier()
    os.environ.pop("RLHF_STAGE_STARTED", None)  # each cell's time begins now
    seed_global(run.seed, "reward")  # a cell draws the same whatever was trained before it
    defaults = resolved_settings(*(kind() for kind in reward_stage.ARGUMENTS))
    inner = Stage(
        "reward", groups[0], resolved_settings(*groups), result_settings(*groups), defaults
    )
    fresh = True
    with (root / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
        try:
            reward_stage.main(inner, *groups)
        except Finished:
            fresh = False
        except UserError as error:
            raise UserError(f"{cell.title}: {error}") from error
    file = inner.folder / "result.json"
    text = broadcast_object(file.read_text(encoding="utf-8") if is_main() else None)
    return json.loads(str(text)), fresh


def link_pairs(run: Path, root: Path) -> None:
    """The run's own pairs and rankings, where a cell looks for its own."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("pairs", "rank"):
        if (run / name).is_dir() and not (root / name).exists():
            (root / name).symlink_to(os.path.relpath(run / name, root), target_is_directory=True)


if __name__ == "__main__":
    run_stage("scale", ARGUMENTS, main, section="reward")
