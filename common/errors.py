"""What is meant for the person at the keyboard."""

import difflib
from collections.abc import Sequence


class UserError(ValueError):
    """Something the user can fix: bad input, a wrong setting, a folder that lacks a file.

    The message says what is wrong, where (file, line, field) and what to do about it. Every
    `main.py` prints it without a traceback and ends with exit code 2.
    """


class NotFinite(UserError):
    """A loss, a gradient or a probability is NaN or infinite; in a step, on all ranks alike."""


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """'; did you mean …?' for the closest known name, or else the list of known names."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{prefix}{close[0]}'?"
    return f"; known here: {', '.join(known)}"
