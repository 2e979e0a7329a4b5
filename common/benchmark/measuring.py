"""The clock, and whole stages as the launchers start them."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "sft": "step1_sft/main.py",
    "reward": "step2_reward/main.py",
    "rlhf": "step3_rlhf/main.py",
}


def now() -> float:
    """Seconds, after the device has finished what was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], Any], repeats: int) -> float:
    """Seconds, the best of several after one to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        started = now()
        work()
        seconds.append(now() - started)
    return best(seconds[1:])


def best(seconds: Sequence[float]) -> float:
    """The smallest of several measurements: everything else on the machine only adds."""
    return min(seconds)


def launched(
    stage: str,
    run: Path,
    options: Sequence[str],
    ranks: int,
    *,
    before: str = ":",
    script: Sequence[str] = (),
) -> dict[str, Any]:
    """The `result.json` of a stage that is run for it.

    Args:
        before: words of the shell that starts it.
        script: what is started in place of the stage's own `main.py`.

    Raises:
        UserError: it failed; says how.
    """
    words = f'source launch/env.sh; {before}; launch_stage "$@"'
    command = ["bash", "-c", words, "launch", str(ranks), *(script or [SCRIPTS[stage]])]
    done = subprocess.run(
        [*command, "--run", str(run), *options], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(
            f"{stage} {' '.join(options)}: ended with code {done.returncode}:\n"
            f"{done.stdout}{done.stderr}"
        )
    return json.loads((run / stage / "result.json").read_text())
