"""What `launch/pipeline.sh` needs to know of a pipeline file: where it runs, and what is left.

Prints "RUN PROCESSES SEED CONFIG" and then one stage a line, with 1 behind it when it has been done
with these settings (from which inputs is for the launcher to see), else 0.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.parsing import (
    SECTIONS,
    check_sections_known,
    parse_arguments,
    place,
    read_yaml,
    result_settings,
)
from common.errors import UserError, nearest
from common.files import write_json
from common.training.resume.identity import movable, read_identity, start_over

RECORD = "pipeline.json"
MODULES = {
    "data": "common.data.ad_moderation.prepare",
    "sft": "step1_sft.main",
    "sample": "step2_reward.sample",
    "rank": "step2_reward.rank",
    "ai_rank": "step2_reward.ai_rank",
    "import": "step2_reward.import_rankings",
    "pairs": "step2_reward.pairs",
    "reward": "step2_reward.main",
    "rlhf": "step3_rlhf.main",
    "dpo": "step3_rlhf.dpo",
    "evaluation": "common.evaluation.main",
    "benchmarks": "common.evaluation.benchmarks.run",
}
"""What each section's stage runs; its `ARGUMENTS` are the settings that the section may hold."""

DATA_SETTINGS = ("data", "eval_data", "rankings", "ptx_data")
"""Settings that list data sources."""

READERS = {
    "sft": "read_conversations",
    "sample": "read_prompts",
    "pairs": "read_rankings",
    "reward": "read_rankings",
    "rlhf": "read_prompts",
    "dpo": "read_rankings",
    "evaluation": "read_prompts",
}
"""Functions of `common.data.layouts` that the stages read these sources with; `ptx_data` is
read as conversations everywhere."""


@dataclass(frozen=True)
class Plan:
    """A pipeline run."""

    run: Path
    processes: int
    seed: int
    config: Path
    stages: tuple[str, ...]
    """Sections that are present, in order."""
    settled: tuple[str, ...] = ()
    """Those of them that have been done with these settings."""


def make_plan(argv: Sequence[str]) -> Plan:
    """Reads the pipeline file, checks the run directory, and lists the stages.

    A run directory belongs to one seed; another is refused.

    Raises:
        UserError: unreadable config, no stages, a setting that a stage would refuse, a run
            directory of another seed or that cannot be made or read, `--fresh` on a folder that
            no pipeline made.
    """
    args = _parser().parse_args(argv)
    tree, marks = read_yaml(args.config)
    check_sections_known(args.config, tree, marks)
    stages = [name for name in SECTIONS if name in tree]
    if not stages:
        raise UserError(f"{args.config}: no stage in it; sections are {', '.join(SECTIONS)}")
    if not isinstance(tree.get("run"), str | None):
        raise UserError(
            f"{place(args.config, marks, 'run')}: 'run' must be the name of a folder (in quotes if "
            "it looks like a number)"
        )
    for name in ("seed", "processes"):
        if name in tree and type(tree[name]) is not int:
            raise UserError(f"{place(args.config, marks, name)}: '{name}' must be a whole number")
    run = Path(args.run or tree.get("run") or f"runs/{args.config.stem}")
    seed = tree.get("seed", 0) if args.seed is None else args.seed
    processes = tree.get("processes", 1) if args.processes is None else args.processes
    if processes < 1:
        raise UserError(f"--processes is {processes}, but must be at least 1")
    if args.restart and args.restart not in stages:
        raise UserError(f"--restart {args.restart}: no such stage{nearest(args.restart, stages)}")
    settings = check_sections(args.config, stages, run, seed, marks)
    try:
        if args.fresh:
            remove_run(run)
        _claim(run, seed)
    except OSError as error:
        raise UserError(f"{run}: cannot be the run directory: {error.strerror}") from None
    if args.restart:
        start_over(run / args.restart)
    settled = tuple(name for name in stages if _is_settled(run, name, settings[name]))
    return Plan(run, processes, seed, args.config.resolve(), tuple(stages), settled)


def check_sections(
    config: Path, stages: Sequence[str], run: Path, seed: int, marks: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """Parses every section, and reads its files, as its stage will.

    A mistake in the last one then costs no training.

    Args:
        marks: the line of each key, as `read_yaml` gives them.

    Returns:
        for each stage the settings that its result depends on.

    Raises:
        UserError: what `parse_arguments` raises; a data source that is malformed; a file outside
            the run directory that does not exist, or that its stage would refuse.
    """
    from common.data import layouts
    from common.data.readers import FILE_TYPES
    from common.data.sources import parse_sources
    from common.ppo.sources import RewardSourceArguments
    from common.reward.places import check_functions, parse_rewards

    options = ["--config", str(config), "--run", str(run), "--seed", str(seed)]
    settings = {}
    for stage in stages:
        groups = parse_arguments(importlib.import_module(MODULES[stage]).ARGUMENTS, stage, options)
        settings[stage] = result_settings(*groups)
        for group in groups:
            if isinstance(group, RewardSourceArguments) and group.reward:
                try:
                    check_functions(parse_rewards(group.reward, default=""))
                except UserError as error:
                    raise UserError(f"{place(config, marks, f'{stage}.reward')}: {error}") from None
            folder = getattr(group, "benchmark_data", "")
            if folder and not Path(folder).is_relative_to(run) and not Path(folder).is_dir():
                at = place(config, marks, f"{stage}.benchmark_data")
                raise UserError(f"{at}: no such folder: {folder}")
            for name in DATA_SETTINGS:
                values = getattr(group, name, None)
                at = place(config, marks, f"{stage}.{name}")
                try:
                    sources = parse_sources(values) if values else []
                except UserError as error:
                    raise UserError(f"{at}: {error}") from None
                for source in sources:
                    path = Path(source.path)
                    if path.suffix not in FILE_TYPES or path.is_relative_to(run):
                        continue  # looked for on the hub, or made by an earlier stage
                    if not os.path.isfile(os.path.expanduser(path)):  # False for any odd name
                        raise UserError(f"{at}: no such file: {source.path}")
                    reader = "read_conversations" if name == "ptx_data" else READERS[stage]
                    getattr(layouts, reader)([source])
    return settings


def remove_run(run: Path) -> None:
    """Deletes a run directory.

    Raises:
        UserError: the folder holds something, but no pipeline made it.
    """
    if not run.exists():
        return
    if any(run.iterdir()) and not (run / RECORD).is_file():
        raise UserError(
            f"{run}: --fresh would delete this folder, but no pipeline made it ({RECORD} is "
            "missing); choose another --run"
        )
    shutil.rmtree(run)


def _claim(run: Path, seed: int) -> None:
    """Makes the run directory, or checks whose it is."""
    file = run / RECORD
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8")).get("seed")
        except (ValueError, AttributeError, RecursionError):
            raise UserError(f"{file}: is damaged; use --fresh to start over") from None
        if before != seed:
            raise UserError(
                f"{run} was made with seed {before}, not {seed}; use --fresh to start over, or "
                "--run for another folder"
            )
    write_json(file, {"seed": seed})


def _is_settled(run: Path, stage: str, settings: dict[str, Any]) -> bool:
    """Whether a stage has been done with these settings."""
    begun = read_identity(run / stage)
    done = (run / stage / "result.json").is_file()
    # As they stand in the file: through JSON tuples become lists.
    now = json.loads(json.dumps(movable(settings, run)))
    return done and begun is not None and begun.settings == now


def _parser() -> argparse.ArgumentParser:
    launcher = os.environ.get("RLHF_LAUNCHER", "pipeline.sh CONFIG")
    parser = argparse.ArgumentParser(
        usage=f"bash launch/{launcher} [--run DIR] [--processes N] [--seed N] [--fresh] "
        "[--restart STAGE]",
        description="Runs the stages of a pipeline file that are not finished.",
    )
    parser.add_argument("config", type=Path, help="YAML file with a section per stage")
    parser.add_argument("--run", help="run directory; by default the config's, or runs/NAME")
    parser.add_argument("--processes", type=int, help="ranks of every stage")
    parser.add_argument("--seed", type=int, help="seed of the whole run")
    parser.add_argument("--restart", metavar="STAGE", help="start one stage over")
    parser.add_argument("--fresh", action="store_true", help="delete the run directory first")
    return parser


def main(argv: Sequence[str]) -> int:
    """Prints the plan; returns the exit code."""
    try:
        plan = make_plan(argv)
    except UserError as error:
        print(f"pipeline: error: {error}", file=sys.stderr)
        return 2
    for part in (plan.run, plan.config):
        if any(c.isspace() for c in str(part)):
            print(f"pipeline: error: blanks in a path are not supported: {part}", file=sys.stderr)
            return 2
    print(os.fspath(plan.run), plan.processes, plan.seed, plan.config)
    for name in plan.stages:
        print(name, int(name in plan.settled))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
