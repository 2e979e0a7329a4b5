"""The clock."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


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
