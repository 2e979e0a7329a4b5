"""Which browser the tests drive: Debian's Chromium, or Playwright's own where that is installed."""

import os
import shutil
from typing import Any


def chromium() -> str | None:
    """Path of a browser that is installed on this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def launch_options() -> dict[str, Any]:
    """For Playwright's `chromium.launch`."""
    # Chromium's sandbox refuses to run as root, as tests in containers do.
    options: dict[str, Any] = {"args": ["--no-sandbox"] if os.geteuid() == 0 else []}
    path = chromium()
    return options | ({"executable_path": path} if path else {})
