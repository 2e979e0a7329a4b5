"""Requests to stop: the run finishes its step, saves, and ends with a code of its own.

SIGTERM, SIGUSR1 (Slurm's warning before the time is up) and Ctrl-C ask for it; a second one ends
the process at once. The launchers do not pass a signal on, which would end DeepSpeed's own
processes, but make the file `RLHF_STOP_FILE`, which rank 0 looks for after every step.
"""

import contextlib
import os
import platform
import signal
import sys
from pathlib import Path
from types import FrameType

from common.files import write_text

STOP_CODE = 75
"""Exit code of a run that was asked to stop, and can go on (EX_TEMPFAIL of sysexits.h)."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(Exception):
    """The run was asked to stop; what it has done so far is saved."""


class StopRequests:
    """Whether somebody wants this process to stop."""

    def __init__(self) -> None:
        self._asked = False

    def install(self) -> None:
        """From now on signals are requests. In the main thread only.

        Under our launchers, which ask by their file, SIGTERM is DeepSpeed's: another rank is gone,
        and this one is to end at once.
        """
        for number in SIGNALS:
            if number != signal.SIGTERM or "RLHF_STOP_FILE" not in os.environ:
                signal.signal(number, self._note)

    def asked(self) -> bool:
        """Whether a signal came, the launcher made its file, or the launcher is gone."""
        if not self._asked:
            path = os.environ.get("RLHF_STOP_FILE")
            self._asked = (bool(path) and Path(path).exists()) or launcher_is_gone()
        return self._asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(128 + number)
        self._asked = True
        if os.environ.get("RANK", "0") == "0":
            text = "stopping after this step and saving; once more: stop at once\n"
            os.write(sys.stderr.fileno(), text.encode())


def note_status(code: int) -> bool:
    """Rank 0 leaves the code for the launchers; whether they started this process.

    DeepSpeed's own loses codes, and takes any but 0 as a failure.
    """
    status = os.environ.get("RLHF_STATUS_FILE")
    if status and os.environ.get("RANK", "0") == "0":
        with contextlib.suppress(OSError):
            write_text(Path(status), f"{code}\n")
    return bool(status)


def launcher_is_gone() -> bool:
    """Whether the shell that started this run, on this machine, was killed; it can't pass that on.

    `RLHF_SHELL` is its machine and its process.
    """
    host, _, process = os.environ.get("RLHF_SHELL", "").partition(" ")
    if host != platform.node() or not process:
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


REQUESTS = StopRequests()
"""This process's."""
