"""What `launch/pipeline.sh` needs to know of a pipeline file: where it runs, and what is left.

Prints "RUN PROCESSES SEED CONFIG" and then one unfinished stage a line.
"""

import argparse
import hashlib
import importlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config.parsing import SECTIONS, parse_arguments, read_yaml
from common.errors import UserError, nearest

RECORD = "pipeline.json"
MODULES = {
    "data": "common.data.ad_moderation.prepare",
    "sft": "step1_sft.main",
    "sample": "step2_reward.sample",
    "rank": "step2_reward.rank",
    "pairs": "step2_reward.pairs",
    "reward": "step2_reward.main",
    "rlhf": "step3_rlhf.main",
    "evaluation": "common.evaluation.main",
}
"""What each section's stage runs; its `ARGUMENTS` are the settings that the section may hold."""

DATA_SETTINGS = ("data", "eval_data", "rankings")
"""Settings that list data sources."""

READERS = {
    "sft": "read_conversations",
    "sample": "read_prompts",
    "pairs": "read_rankings",
    "reward": "read_rankings",
    "rlhf": "read_prompts",
    "evaluation": "read_prompts",
}
"""Functions of `common.data.layouts` that the stages read these sources with."""


@dataclass(frozen=True)
class Plan:
    """A pipeline run."""

    run: Path
    processes: int
    seed: int
    config: Path
    stages: tuple[str, ...]
    """Sections that are present and not finished, in order."""
    finished: tuple[str, ...] = ()
    """Those that are left out."""


def make_plan(argv: Sequence[str]) -> Plan:
    """Reads the pipeline file, checks the run directory, and lists the stages to run.

    A finished stage is left out, unless its section or one before it has changed since. A run
    directory belongs to one seed and number of processes; others are refused.

    Raises:
        UserError: unreadable config, no stages, a setting that a stage would refuse, a run
            directory of another seed, `--fresh` on a folder that no pipeline made.
    """
    args = _parser().parse_args(argv)
    tree, marks = read_yaml(args.config)
    known = [*SECTIONS, "run", "seed", "processes"]
    for name in tree:
        if name not in known:
            raise UserError(
                f"{args.config}:{marks.get(name, '?')}: unknown section '{name}'"
                + nearest(name, known)
            )
    stages = [name for name in SECTIONS if name in tree]
    if not stages:
        raise UserError(f"{args.config}: no stage in it; sections are {', '.join(SECTIONS)}")
    run = Path(args.run or tree.get("run") or f"runs/{args.config.stem}")
    for name in ("seed", "processes"):
        if name in tree and type(tree[name]) is not int:
            raise UserError(f"{args.config}:{marks[name]}: '{name}' must be a whole number")
    seed = tree.get("seed", 0) if args.seed is None else args.seed
    processes = tree.get("processes", 1) if args.processes is None else args.processes
    if processes < 1:
        raise UserError(f"--processes is {processes}, but must be at least 1")
    check_sections(args.config, stages, run, seed, marks)
    if args.fresh:
        remove_run(run)
    before = _claim(run, {"seed": seed, "processes": processes})
    sections = {name: _fingerprint(tree[name]) for name in stages}
    finished = [
        (run / name / "result.json").is_file() and before.get(name) == sections[name]
        for name in stages
    ]
    # Whatever follows an unfinished stage was made from older inputs.
    left = stages[finished.index(False) :] if False in finished else []
    for name in left:
        (run / name / "result.json").unlink(missing_ok=True)
    record = {"seed": seed, "processes": processes, "sections": sections}
    (run / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    done = tuple(name for name in stages if name not in left)
    return Plan(run, processes, seed, args.config.resolve(), tuple(left), done)


def check_sections(
    config: Path, stages: Sequence[str], run: Path, seed: int, marks: dict[str, int]
) -> None:
    """Parses every section, and reads its files, as its stage will.

    A mistake in the last one then costs no training.

    Args:
        marks: the line of each key, as `read_yaml` gives them.

    Raises:
        UserError: what `parse_arguments` raises; a data source that is malformed; a file outside
            the run directory that does not exist, or that its stage would refuse.
    """
    from common.data import layouts
    from common.data.readers import FILE_TYPES
    from common.data.sources import parse_sources

    options = ["--config", str(config), "--run", str(run), "--seed", str(seed)]
    for stage in stages:
        types = importlib.import_module(MODULES[stage]).ARGUMENTS
        for group in parse_arguments(types, stage, options):
            for name in DATA_SETTINGS:
                values = getattr(group, name, None)
                place = f"{config}:{marks.get(f'{stage}.{name}', '?')}"
                try:
                    sources = parse_sources(values) if values else []
                except UserError as error:
                    raise UserError(f"{place}: {error}") from None
                for source in sources:
                    path = Path(source.path).expanduser()
                    made_later = Path(source.path).is_relative_to(run)
                    if path.suffix not in FILE_TYPES or made_later:
                        continue
                    if not path.is_file():
                        raise UserError(f"{place}: no such file: {source.path}")
                    getattr(layouts, READERS[stage])([source])


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


def _claim(run: Path, wanted: dict[str, int]) -> dict[str, str]:
    """Makes the run directory, or checks whose it is; returns its sections' fingerprints."""
    run.mkdir(parents=True, exist_ok=True)
    file = run / RECORD
    if not file.is_file():
        return {}
    before = json.loads(file.read_text(encoding="utf-8"))
    for name, value in wanted.items():
        if before.get(name) != value:
            raise UserError(
                f"{run} was made with {name} {before.get(name)}, not {value}; use --fresh to "
                "start over, or --run for another folder"
            )
    return before.get("sections", {})


def _fingerprint(section: object) -> str:
    return hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()


def _parser() -> argparse.ArgumentParser:
    launcher = os.environ.get("RLHF_LAUNCHER", "pipeline.sh CONFIG")
    parser = argparse.ArgumentParser(
        usage=f"bash launch/{launcher} [--run DIR] [--processes N] [--seed N] [--fresh]",
        description="Runs the stages of a pipeline file that are not finished.",
    )
    parser.add_argument("config", type=Path, help="YAML file with a section per stage")
    parser.add_argument("--run", help="run directory; by default the config's, or runs/NAME")
    parser.add_argument("--processes", type=int, help="ranks of every stage")
    parser.add_argument("--seed", type=int, help="seed of the whole run")
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
    if plan.finished:
        done = ", ".join(plan.finished)
        print(f"pipeline: finished already: {done}; --fresh starts over", file=sys.stderr)
    print(os.fspath(plan.run), plan.processes, plan.seed, plan.config)
    print("\n".join(plan.stages))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
