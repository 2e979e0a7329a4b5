"""Separate random streams by purpose, so that one setting's draws never shift another's."""

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """A 63-bit seed for one purpose, e.g. `derive_seed(seed, "rollout", step, rank)`.

    Equal on every machine and in every process (unlike Python's `hash`).
    """
    text = "/".join(str(p) for p in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *purpose: object) -> np.random.Generator:
    """NumPy's generator for one purpose."""
    return np.random.default_rng(derive_seed(seed, *purpose))


def seed_global(seed: int, *purpose: object) -> None:
    """Sets the global generators of torch (CPU and device), NumPy and Python.

    For code of libraries that draws from no other.
    """
    derived = derive_seed(seed, *purpose)
    torch.manual_seed(derived)
    np.random.seed(derived % 2**32)
    random.seed(derived)
