"""The planner against real runs: planned and measured peak memory of stages on this CPU.

Every case is a stage as the launchers start it, on a model folder and data made here, whose rows
are as long as the settings allow; its `result.json` holds both figures. Measured is the resident
memory at its peak above the level after the imports, of the rank that has most.

The launchers let the C library keep what is freed, which saves time and costs memory: how much more
a process then holds than it uses depends on the order in which blocks come and go, and is in a
column of its own. To measure what is used, blocks from 64 KiB on are given back as they are freed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.benchmark.measuring import launched
from common.benchmark.one_base import OneBaseBenchmark, prepare
from common.config.arguments import RunArguments, check_range, option
from common.files import write_json, write_json_lines
from common.training.metrics import progress_bar
from common.training.run import run_stage
from common.training.stage import Stage

RETURNED = 2**16
"""Bytes of a block from which on it is given back when it is freed."""
TOKENS = 64
"""Of a prompt, and of a response."""
LIMIT = 0.1
"""Share by which a plan may be off."""


@dataclass
class PlanBenchmark:
    """What is run."""

    width: int = option(512, "hidden size of the model")
    layers: int = option(8, "its decoder layers")
    ranks: int = option(2, "ranks under ZeRO-2 and 3; ZeRO-0 runs on one")
    stages: list[str] = option(["sft", "reward", "rlhf"], "which stages")
    kept: bool = option(False, "also measure what the launchers' processes hold")

    def __post_init__(self) -> None:
        check_range(self, 1, "width", "layers")
        check_range(self, 2, "ranks")


ARGUMENTS = (RunArguments, PlanBenchmark)
"""Every setting; the order is that of `main`'s parameters."""


@dataclass(frozen=True)
class Case:
    """A stage with the settings that matter to its memory."""

    stage: str
    zero: str
    lora: bool
    checkpointing: bool

    def __str__(self) -> str:
        lora, checkpointing = ("on" if x else "off" for x in (self.lora, self.checkpointing))
        return f"{self.stage}, ZeRO-{self.zero}, LoRA {lora}, checkpointing {checkpointing}"


def cases(stages: list[str]) -> Iterator[Case]:
    """All twelve of SFT; of the others the corners."""
    for stage in stages:
        for zero in ("0", "2", "3"):
            for lora in (False, True):
                for checkpointing in (False, True):
                    if stage == "sft" or lora == checkpointing:
                        yield Case(stage, zero, lora, checkpointing)


def main(stage: Stage, run: RunArguments, settings: PlanBenchmark) -> None:
    """Writes `rows.json`, and a table of it in Markdown."""
    stage.begin_anew()
    write_inputs(stage.folder, settings)
    chosen = list(cases(settings.stages))
    rows = []
    with progress_bar(len(chosen), "planned and measured", shown=run.progress) as bar:
        for case in chosen:
            rows.append(measure(stage.folder, case, settings))
            write_json(stage.folder / "rows.json", rows)
            print(line(rows[-1]), flush=True)
            bar.update()
    (stage.folder / "table.md").write_text(table(rows), encoding="utf-8")
    off = [abs(row["planned"] / row["measured"] - 1) for row in rows]
    stage.finish(
        {"largest_error": max(off), "beyond_limit": sum(x > LIMIT for x in off)},
        f"{len(rows)} runs, the plan is off by {max(off):.0%} at most",
    )


def write_inputs(folder: Path, settings: PlanBenchmark) -> None:
    """A model, a reward model of adapters on it, and data with rows that are too long."""
    shape = OneBaseBenchmark(settings.width, settings.layers, 8, 1)
    prepare(str(folder / "model"), str(folder / "reward"), shape)
    text = [f"{i} " + "which policy may this ad break " * TOKENS for i in range(16)]
    write_json_lines(folder / "sft.jsonl", [{"prompt": t, "completion": t} for t in text])
    write_json_lines(folder / "prompts.jsonl", [{"prompt": t} for t in text])
    responses = [[f"{letter} {t}" for letter in "abcd"] for t in text]
    ranked = [
        {"prompt": t, "responses": r, "orders": [[0, 1, 2, 3]]}
        for t, r in zip(text, responses, strict=True)
    ]
    write_json_lines(folder / "rankings.jsonl", ranked)


def measure(folder: Path, case: Case, settings: PlanBenchmark) -> dict[str, Any]:
    """One case: planned and measured peaks in megabytes."""
    result = run_case(folder, case, settings, RETURNED)
    row = {
        "case": str(case),
        "planned": result["planned"]["megabytes"],
        "phase": result["planned"]["phase"],
        "measured": result["peak_megabytes"],
    }
    if settings.kept:
        row["kept"] = run_case(folder, case, settings, 0)["peak_megabytes"]
    return row


def run_case(folder: Path, case: Case, settings: PlanBenchmark, returned: int) -> dict[str, Any]:
    """The `result.json` of a run; raises as `launched`."""
    ranks = 1 if case.zero == "0" else settings.ranks
    own = f"export MALLOC_MMAP_THRESHOLD_={returned} MALLOC_TRIM_THRESHOLD_={returned}"
    words = options(folder, case, ranks)
    return launched(case.stage, folder / "run", words, ranks, before=own if returned else ":")


def options(folder: Path, case: Case, ranks: int) -> list[str]:
    """The command line of a case: two optimizer steps of two micro-batches.

    Of PPO three: the first trains the critic alone, and in the second the actor's states come.
    """
    batch = str(8 * ranks)
    found = {
        "fresh": "true",
        "progress": "false",
        "zero": case.zero,
        "lora_rank": "8" if case.lora else "0",
        "gradient_checkpointing": str(case.checkpointing).lower(),
        "max_prompt_tokens": str(TOKENS),
        "max_response_tokens": str(TOKENS),
        "long_prompts": "truncate",
    }
    if case.stage == "rlhf":
        found |= {"actor": str(folder / "model"), "data": str(folder / "prompts.jsonl")}
        found |= {"reward": str(folder / "reward"), "steps": "3", "ppo_epochs": "1"}
        found |= {"rollout_batch_size": batch, "mini_batch_size": batch, "micro_batch_size": "4"}
        found |= {"score_batch_size": "4", "generation_batch_size": "8"}
        found |= {"kl_horizon": "1000"}
    else:
        files = {"sft": "sft.jsonl", "reward": "rankings.jsonl"}
        micro = "4" if case.stage == "sft" else "1"
        found |= {"model": str(folder / "model"), "data": str(folder / files[case.stage])}
        found |= {"batch_size": batch if case.stage == "sft" else str(2 * ranks)}
        found |= {"micro_batch_size": micro, "eval_batch_size": "1", "evaluations": "1"}
        found |= {"eval_fraction": "0.2"}
        found |= {"epochs": str(2 * int(found["batch_size"]) / 13)}
    if case.stage == "sft":
        found |= {"scrub_pii": "false"}
    return [word for name, value in found.items() for word in (f"--{name}", value)]


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    off = row["planned"] / row["measured"] - 1
    kept = f" {row['kept']:.0f} |" if "kept" in row else ""
    return (
        f"| {row['case']} | {row['planned']:.0f} | {row['measured']:.0f} | {off:+.1%} |"
        f"{kept} {row['phase']} |"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """All rows, in Markdown."""
    kept = " with memory kept |" if "kept" in rows[0] else ""
    head = f"| MB a rank | planned | measured | error |{kept} worst phase of the plan |"
    rule = "|" + " --- |" * (head.count("|") - 1)
    return "\n".join([head, rule, *map(line, rows)]) + "\n"


if __name__ == "__main__":
    run_stage("plan", ARGUMENTS, main, distributed=False)
