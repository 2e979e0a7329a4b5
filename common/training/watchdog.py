"""Where this process is, and an end to it when it stays there too long.

A collective that one rank never joins hangs all the others. The library's own time-out does not
know what the run was doing; this does.
"""

import faulthandler
import os
import sys
import threading
import time

HUNG_CODE = 70
"""Exit code of a run that was ended as hung (EX_SOFTWARE of sysexits.h)."""

SECONDS_TO_SPEAK = 2.0
"""Between a rank's message and its end, so that the others' messages come out, too."""


class Watchdog:
    """The place that this process is at, with a limit on the time that it may stay there."""

    def __init__(self) -> None:
        self._place, self._model = "start-up", ""
        self._since = time.monotonic()
        self._limit = float("inf")
        self._thread: threading.Thread | None = None

    @property
    def place(self) -> str:
        """What this process does, for messages: "step 12, scoring (critic)"."""
        return self._place + (f" ({self._model})" if self._model else "")

    @property
    def limit(self) -> float:
        """Seconds that a process may stay at one place, on this rank as on those that wait for it;
        infinite before `start` and after `stop`."""
        return self._limit

    def at(self, place: str) -> None:
        """Notes what is done from now on; the time starts anew."""
        self._place, self._model = place, ""
        self.alive()

    def using(self, model: str) -> None:
        """Notes which model is at work, at the same place; the time starts anew."""
        self._model = model
        self.alive()

    def alive(self) -> None:
        """The time starts anew: part of what takes long is done."""
        self._since = time.monotonic()

    def start(self, minutes: float) -> None:
        """From now on, ends the process when it stays at one place for longer than this."""
        self._since, self._limit = time.monotonic(), 60.0 * minutes
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """No limit any longer."""
        self._limit = float("inf")

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self._limit / 10))
            if time.monotonic() - self._since > self._limit:
                self._end()

    def _end(self) -> None:
        rank = os.environ.get("RANK", "0")
        print(
            f"rank {rank} has been at {self.place} for over {self._limit / 60:g} minutes: ended as "
            "hung. Where it stands, innermost call first, is below; a rank that is not in a "
            "collective is the one that the others wait for. If a step may take this long, raise "
            "--step_timeout (minutes). The last checkpoint is whole: the same command goes on",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        sys.stderr.flush()
        time.sleep(SECONDS_TO_SPEAK)
        os._exit(HUNG_CODE)


WATCHDOG = Watchdog()
"""This process's."""
