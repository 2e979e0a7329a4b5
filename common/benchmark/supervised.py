"""SFT and reward training against TRL's trainers: seconds a step and memory, at equal work.

Each measurement is a process of its own, which trains one of the two on the same examples, batch
and model; the processes take turns. Memory is the peak above the level after the imports.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.benchmark.examples import REWARD_BATCH, SFT_BATCH
from common.benchmark.measuring import best
from common.benchmark.shapes import QUICKSTART, WIDE, Shape
from common.config.arguments import RunArguments, option
from common.errors import UserError
from common.files import write_json
from common.training.metrics import progress_bar
from common.training.run import run_stage
from common.training.stage import Stage

BATCHES = {"sft": SFT_BATCH, "reward": REWARD_BATCH}
SHAPES: dict[str, Shape] = {s.name: s for s in (QUICKSTART, WIDE)}


@dataclass
class SupervisedBenchmark:
    """What is measured."""

    repeats: int = option(3, "processes of each, in turns; the best counts")
    steps: int = option(60, "optimizer steps of each process, of which the first tenth warms up")
    growth: bool = option(True, "also how the ratios change with the batch")


ARGUMENTS = (RunArguments, SupervisedBenchmark)
"""Every setting; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: SupervisedBenchmark) -> None:
    """Writes a row for SFT and one for reward training of each shape."""
    stage.begin_anew()
    rows = []
    cases = [(shape, *task) for shape in SHAPES for task in BATCHES.items()]
    if settings.growth:
        cases += [
            (QUICKSTART.name, task, batch * factor)
            for factor in (1 / 4, 4)
            for task, batch in BATCHES.items()
        ]
    total = len(cases) * 2 * settings.repeats
    with progress_bar(total, "SFT and reward training", shown=run.progress) as bar:
        for shape, task, batch in cases:
            found: dict[str, list[dict[str, float]]] = {"native": [], "trl": []}
            for _ in range(settings.repeats):
                for name, values in found.items():
                    row = measure(stage.folder, name, task, shape, settings.steps, int(batch))
                    values.append(row)
                    bar.update()
            rows.append(summarized(task, shape, int(batch), found))
    write_json(stage.folder / "rows.json", rows)
    stage.finish(
        {},
        ", ".join(
            f"{r['shape']} {r['task']}: speed {r['ratio']:.2f}, memory {r['memory_ratio']:.2f}"
            for r in rows
        ),
    )


def measure(
    folder: Path, name: str, task: str, shape: str, steps: int, batch: int
) -> dict[str, float]:
    """One process; `seconds` a step, `megabytes` at the peak, `tokens` of all examples."""
    out = folder / "contender.json"
    module = "common.benchmark.contender_trl" if name == "trl" else "common.benchmark.contender"
    arguments = [task, shape, str(steps), str(batch), str(out)]
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)  # both sides print bars
    if done.returncode:
        raise UserError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stderr}")
    return json.loads(out.read_text())


def summarized(
    task: str, shape: str, batch: int, found: dict[str, list[dict[str, float]]]
) -> dict[str, Any]:
    """Ratios above 1 where ours is ahead."""
    seconds = {name: best([v["seconds"] for v in values]) for name, values in found.items()}
    memory = {name: best([v["megabytes"] for v in values]) for name, values in found.items()}
    tokens = {int(v["tokens"]) for values in found.values() for v in values}
    if len(tokens) != 1:
        raise RuntimeError(f"{task}: the two did not train on the same tokens: {tokens}")
    return {
        "task": task,
        "shape": shape,
        "batch": batch,
        "native_seconds_per_step": seconds["native"],
        "trl_seconds_per_step": seconds["trl"],
        "ratio": seconds["trl"] / seconds["native"],
        "native_megabytes": memory["native"],
        "trl_megabytes": memory["trl"],
        "memory_ratio": memory["trl"] / memory["native"],
    }


if __name__ == "__main__":
    run_stage("supervised", ARGUMENTS, main, distributed=False)
