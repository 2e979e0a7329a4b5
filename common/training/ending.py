"""How a stage's process ends: its exit code, and what it says when it did not come to the end."""

import atexit
import os
import signal
import sys
import time
import traceback
from typing import Any

from common.errors import UserError
from common.files import is_disk_full
from common.training.memory import is_out_of_memory, memory_message
from common.training.peers import PEERS
from common.training.resume.signals import SIGNALS, STOP_CODE, Stopped, note_status
from common.training.watchdog import WATCHDOG

SECONDS_FOR_RANK_0 = 5.0
"""How long another rank waits before it prints an error that rank 0 may have printed already."""

SECONDS_FOR_THE_CAUSE = 15.0
"""How long a rank whose peer is gone waits, so that the peer's own error comes first."""


def same_command() -> str:
    """The command that goes on; options that start over would do so again."""
    again = "RLHF_STARTS_OVER" in os.environ or any(a.startswith("--fresh") for a in sys.argv)
    return "the same command" + (" without --fresh and --restart" if again else "")


def stop_at_once() -> None:
    """Signals end this process wherever it is: its files are each replaced as a whole."""

    def stop(number: int, frame: Any) -> None:  # noqa: ANN401
        raise Stopped

    for number in SIGNALS:
        signal.signal(number, stop)


def report(name: str, error: Exception) -> int:
    """Prints what went wrong, the cause before what followed from it; returns the exit code."""
    # Whoever is told to end now ends at once: there is nothing to save any longer.
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    number = os.environ.get("RANK", "0")
    text, code = message_of(error)
    if is_consequence(error):
        known = PEERS.cause(SECONDS_FOR_THE_CAUSE) or "another rank is gone or hung"
        text = f"{known} ({text}), at {WATCHDOG.place}"
    elif number != "0":
        # Where rank 0 has failed alike, the launcher ends this rank before it speaks.
        time.sleep(SECONDS_FOR_RANK_0)
    elif code == 1:
        traceback.print_exception(error)
    where = "" if number == "0" else f" (rank {number})"
    if code == 1 and number != "0" and not is_consequence(error):
        traceback.print_exception(error)
    print(f"{name}: error{where}: {text}", file=sys.stderr, flush=True)
    return code


def message_of(error: Exception) -> tuple[str, int]:
    """What to tell the user of an error, and the exit code: 2 where the user can do something."""
    if isinstance(error, UserError):
        return str(error), 2
    if is_out_of_memory(error):
        return memory_message(error, WATCHDOG.place), 2
    if is_disk_full(error):
        return (
            f"the disk is full at {WATCHDOG.place} ({error}); what was saved before is whole. "
            "Make room, and give the same command again",
            2,
        )
    return f"{type(error).__name__} at {WATCHDOG.place}: {error}", 1


def is_consequence(error: Exception) -> bool:
    """Whether an error only says that another rank is gone, or does not come."""
    signs = (
        *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL error"),
        *("Timed out waiting", "No route to host", "Network is unreachable"),
    )
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def leave(code: int) -> None:
    """Ends the process without tearing the interpreter down.

    DeepSpeed's module-level caches keep process groups, and with them gloo's threads, alive to the
    very end. One that lets go of a tensor while the interpreter is being torn down aborts the
    process ("terminate called without an active exception", code -6) after all its work is done.
    """
    if code in (0, STOP_CODE):
        PEERS.bye()
    if note_status(code) and code == STOP_CODE:
        code = 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
