"""What a run was made with: versions, device, threads."""

import functools
import os
import platform
from typing import Any

from common.training.distributed import device

PACKAGES = ("torch", "deepspeed", "transformers", "datasets", "peft", "numpy")


def environment() -> dict[str, Any]:
    """What changes roundings, besides settings and inputs."""
    threads = os.environ.get("OMP_NUM_THREADS")
    return {**package_versions(), "device": device().type, "threads": threads}


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
