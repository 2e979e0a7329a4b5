"""The one exception type that is meant for the person at the keyboard."""


class UserError(ValueError):
    """Something the user can fix: bad input, a wrong setting, a folder that lacks a file.

    The message says what is wrong, where (file, line, field) and what to do about it. Every
    `main.py` prints it without a traceback and ends with exit code 2.
    """
