"""How tests start a browser: Debian's Chromium, or Playwright's own where that is installed."""

import os
import shutil
from typing import Any


def launch_options() -> dict[str, Any]:
    """For Playwright's `chromium.launch`."""
    # Chromium's sandbox refuses to run as root, as tests in containers do.
    options: dict[str, Any] = {"args": ["--no-sandbox"] if os.geteuid() == 0 else []}
    names = ("chromium", "chromium-browser")
    path = next(filter(None, map(shutil.which, names)), None)
    return options | ({"executable_path": path} if path else {})
