"""Runs that are killed at random moments, and held against runs that were not.

    python -m tests.chaos [--kills N] [--seed S] [--only WORD…] [--folder DIR]

For each stage, with 1 and 2 ranks, ZeRO 0 and 3, with and without LoRA: the stage runs once
undisturbed and without checkpoints, and once with one after every step, killed and started again
by the same command until it is through. Weights, metrics (timings aside), outputs and the random
states at the end must be equal bit for bit. (`launch/chaos.sh`)
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.stages import finish, launch, rank_samples, start, write_data

SECONDS_TO_DIE = 60.0
"""Within which a rank that dies must have taken the others with it."""

SCRIPTS = {
    "sft": "step1_sft/main.py",
    "sample": "step2_reward/sample.py",
    "reward": "step2_reward/main.py",
    "rlhf": "step3_rlhf/main.py",
    "dpo": "step3_rlhf/dpo.py",
    "evaluation": "-m common.evaluation.main",
}
LONGER = {
    "sft": ("--epochs", "9", "--evaluations", "6", "--lora_dropout", "0.1"),
    "sample": ("--generation_batch_size", "1", "--responses", "6"),
    "reward": (
        *("--epochs", "9", "--evaluations", "6", "--lora_dropout", "0.1"),
        *("--patience", "6"),  # goes on to the end, and then back to the best weights
    ),
    "rlhf": ("--steps", "12"),
    "dpo": ("--epochs", "9", "--evaluations", "6", "--lora_dropout", "0.1"),
    "evaluation": ("--samples", "6"),
}
"""So that a stage works for longer than it takes to start."""

NO_CHECKPOINTS = ("--checkpoint_minutes", "0", "--checkpoint_epochs", "false")
ALL_CHECKPOINTS = ("--checkpoint_steps", "1")


@dataclass(frozen=True)
class Case:
    """One way to run a stage."""

    stage: str
    ranks: int
    zero: str = ""
    lora: bool = False

    def __str__(self) -> str:
        zero = f", ZeRO {self.zero}" if self.zero else ""
        return f"{self.stage}, {self.ranks} rank(s){zero}{', LoRA' if self.lora else ''}"

    def options(self) -> list[str]:
        """Settings of the stage."""
        found = list(LONGER[self.stage])
        if self.zero:
            found += ["--zero", self.zero]
        if self.lora:
            found += ["--lora_rank", "4"]
        elif "--lora_dropout" in found:
            del found[found.index("--lora_dropout") :]
        return found


CASES = [
    *(
        Case(stage, ranks, zero, lora)
        for stage in ("sft", "reward", "rlhf", "dpo")
        for ranks in (1, 2)
        for zero in ("0", "3")
        for lora in (False, True)
    ),
    *(Case(stage, ranks) for stage in ("sample", "evaluation") for ranks in (1, 2)),
]


def prepare(root: Path) -> Path:
    """A micro data set, and a run of the stages that the others start from."""
    write_data(root)
    run = root / "base"
    options = ("--config", str(root / "all.yaml"), "--run", str(run))
    for stage in ("sft", "sample"):
        finish(start(SCRIPTS[stage], *options))
    rank_samples(run)
    finish(start("step2_reward/pairs.py", *options))
    finish(start(SCRIPTS["reward"], *options))
    # What an evaluation compares need not have been trained here.
    shutil.copytree(run / "models" / "sft", run / "models" / "actor")
    return run


class Killed:
    """One case, undisturbed and killed."""

    def __init__(self, case: Case, root: Path, base: Path, draw: random.Random) -> None:
        self.case, self.root, self.base, self.draw = case, root, base, draw
        self.name = str(case).replace(" ", "_").replace(",", "")
        self.hit: Counter[str] = Counter()
        self.starting = self.working = 0.0

    def folder(self, kind: str) -> Path:
        """A run that has what the stage starts from."""
        run = self.root / f"{self.name}.{kind}"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        for part in ("models", "pairs"):
            shutil.copytree(self.base / part, run / part)
        shutil.copy(self.base / "rankings.jsonl", run)
        return run

    def begin(self, run: Path, *more: str) -> subprocess.Popen:
        """The stage under its launcher, in a session of its own."""
        options = ("--config", str(self.root / "all.yaml"), "--run", str(run))
        script = SCRIPTS[self.case.stage]
        return launch(self.case.ranks, script, *options, *self.case.options(), *more, *PROGRESS)

    def undisturbed(self) -> Path:
        """The run to compare with; also measures when its work begins and how long it takes."""
        run = self.folder("undisturbed")
        began = time.monotonic()
        process = self.begin(run, *NO_CHECKPOINTS)
        while not (run / self.case.stage / "checkpoints").is_dir() and process.poll() is None:
            time.sleep(0.02)
        self.starting = time.monotonic() - began
        finish(process)
        self.working = time.monotonic() - began - self.starting
        return run

    def killed(self, kills: int) -> Path:
        """A run that was killed so often before it was through.

        Each kill comes at a random moment of its share of the work. A run that is
        through sooner is begun anew, with kills that come earlier.
        """
        share = 1.0
        while True:
            run, self.hit = self.folder("killed"), Counter()
            for _ in range(kills):
                process = self.begin(run, *ALL_CHECKPOINTS)
                if self.draw.random() < 0.1:  # during start-up
                    time.sleep(self.draw.uniform(0.0, self.starting))
                else:
                    self.wait_for_work(process, run)
                    time.sleep(self.draw.uniform(0.0, share * self.working / kills))
                if process.poll() is not None or not self.kill(process, run):
                    finish(process)  # it came through before it was hit
                    break
            else:
                finish(self.begin(run, *ALL_CHECKPOINTS))
                return run
            share /= 2

    def wait_for_work(self, process: subprocess.Popen, run: Path) -> None:
        """Until the stage has done a step, or is through."""
        began = time.time()
        folder = run / self.case.stage
        metrics = folder / "metrics.jsonl"
        length = metrics.stat().st_size if metrics.is_file() else 0
        while process.poll() is None:
            if metrics.is_file() and metrics.stat().st_size not in (0, length):
                return
            saved = folder.glob("checkpoints/step_*")
            if any(p.stat().st_mtime > began for p in saved if p.exists()):
                return
            time.sleep(0.02)

    def kill(self, process: subprocess.Popen, run: Path) -> bool:
        """SIGKILL to everything at once, or to one rank, which must take the others along.

        Returns:
            False where the stage came through before it was hit.
        """
        everything = psutil.Process(process.pid).children(recursive=True)
        ranks = [p for p in everything if _is_rank(p)]
        partial = list((run / self.case.stage / "checkpoints").glob(".step_*.partial"))
        alone = bool(ranks) and self.draw.random() < 0.5
        for victim in [self.draw.choice(ranks)] if alone else everything:
            _kill(victim)
        _, alive = psutil.wait_procs(everything, timeout=SECONDS_TO_DIE)
        assert not alive, f"{self.case}: still there after {SECONDS_TO_DIE:g} s: {alive}"
        if process.wait(timeout=SECONDS_TO_DIE) == 0:
            return False
        output, _ = process.communicate(timeout=SECONDS_TO_DIE)
        assert process.returncode != 75, output[-3000:]
        self.hit["one rank" if alone else "all at once"] += 1
        self.hit["during a save"] += bool(partial)
        return True


PROGRESS = ("--progress", "false")


def compare(stage: str, one: Path, two: Path) -> list[str]:
    """What differs between two runs of a stage, timings aside."""
    found = []
    for file in sorted((one / "models").rglob("*.safetensors")):
        other = two / file.relative_to(one)
        if not other.is_file() or file.read_bytes() != other.read_bytes():
            found.append(str(file.relative_to(one)))
    for name in ("samples.jsonl", "responses.jsonl", "events.jsonl"):
        pair = [(run / stage / name) for run in (one, two)]
        if pair[0].is_file() and pair[0].read_text().replace(str(one), "") != pair[
            1
        ].read_text().replace(str(two), ""):
            found.append(name)
    metrics = [untimed(run / stage / "metrics.jsonl") for run in (one, two)]
    if metrics[0] != metrics[1]:
        found.append("metrics.jsonl")
    states = [list(end_states(run / stage / "checkpoints")) for run in (one, two)]
    if states[0] != states[1] or not states[0]:
        found.append("random or loop state at the end")
    return found


def untimed(file: Path) -> list[dict[str, float]]:
    """A metrics file without what a clock measured."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def end_states(checkpoints: Path) -> Iterator[object]:
    """Random states and all others in the last checkpoint, in which no time stands."""
    last = sorted(p for p in checkpoints.iterdir() if p.name.startswith("step_"))[-1]
    yield last.name
    for file in sorted(last.glob("rank_*")):
        yield file.name, file.read_bytes()
    for file in last.glob("shared.safetensors"):
        yield file.name, file.read_bytes()
    shared = json.loads((last / "shared.json").read_text())
    timed = ("seconds", "spent", "values")
    shared["loop"] = {k: v for k, v in shared["loop"].items() if k not in timed}
    shared.pop("metrics", None)  # lengths of files in which timings stand
    yield shared


def check(case: Case, kills: int, root: Path, base: Path, draw: random.Random) -> Counter[str]:
    """Runs one case; returns what was hit.

    Raises:
        AssertionError: the two runs differ, or a process outlived its peers.
    """
    pair = Killed(case, root, base, draw)
    undisturbed = pair.undisturbed()
    killed = pair.killed(kills)
    differing = compare(case.stage, undisturbed, killed)
    assert not differing, f"{case}: after {pair.hit} these differ: {', '.join(differing)}"
    for run in (undisturbed, killed):
        shutil.rmtree(run)
    return pair.hit


def main() -> int:
    """Runs all cases; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="in all cases together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="*", default=[], help="words that a case's name must have")
    parser.add_argument("--folder", type=Path, help="where the runs go; by default a new one")
    args = parser.parse_args()
    cases = [c for c in CASES if all(word in str(c) for word in args.only)]
    draw = random.Random(args.seed)
    shares = [args.kills // len(cases) + (i < args.kills % len(cases)) for i in range(len(cases))]
    root = args.folder or Path(tempfile.mkdtemp(prefix="chaos_"))
    root.mkdir(parents=True, exist_ok=True)
    base, held, hit = prepare(root), 0, Counter()
    for case, kills in zip(cases, shares, strict=True):
        began = time.monotonic()
        try:
            found = check(case, kills, root, base, draw)
        except AssertionError as error:
            print(f"FAILED {error}", flush=True)
            continue
        held, hit = held + 1, hit + found
        what = ", ".join(f"{count} {name}" for name, count in found.items()) or "no kill"
        print(f"equal: {case} ({what}; {time.monotonic() - began:.0f} s)", flush=True)
    kills = hit["all at once"] + hit["one rank"]
    print(
        f"{held} of {len(cases)} comparisons held, after {kills} kills ({hit['one rank']} of one "
        f"rank, {hit['during a save']} during a save)"
    )
    return 0 if held == len(cases) else 1


def _is_rank(process: psutil.Process) -> bool:
    try:
        return any(part.startswith("--local_rank=") for part in process.cmdline()) and (
            "launcher" not in " ".join(process.cmdline())
        )
    except psutil.Error:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    sys.exit(main())
