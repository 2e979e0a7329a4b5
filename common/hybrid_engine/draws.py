"""Random numbers that belong to a row and a step, whoever works on the row and beside whom."""

import numpy as np

# Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox(counters: np.ndarray, key: int) -> np.ndarray:
    """The four 32-bit words that a key gives for each counter.

    Args:
        counters: `[n, 4]` uint64, each below 2³².
        key: below 2⁶⁴.

    Returns:
        `[n, 4]` uint64, each below 2³².
    """
    c0, c1, c2, c3 = counters.T.astype(np.uint64)
    keys = key & 0xFFFFFFFF, key >> 32
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> HALF) ^ c1 ^ np.uint64(keys[0]),
            second & LOW,
            (first >> HALF) ^ c3 ^ np.uint64(keys[1]),
            first & LOW,
        )
        keys = (keys[0] + WEYL[0]) & 0xFFFFFFFF, (keys[1] + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1)


def uniform_draws(seed: int, streams: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) of several streams, each from a step of its own on.

    Args:
        seed: any integer; taken modulo 2⁶⁴.
        streams: `[rows]` int64 ≥ 0: the number of each row's stream.
        first: `[rows]` int64: the step of each row's first number.
        count: steps.

    Returns:
        `[rows, count]` float64, multiples of 2⁻⁵³.
    """
    steps = np.asarray(first, dtype=np.uint64)[:, None] + np.arange(count, dtype=np.uint64)
    rows = np.broadcast_to(np.asarray(streams, dtype=np.uint64)[:, None], steps.shape)
    counters = np.stack([steps & LOW, steps >> HALF, rows & LOW, rows >> HALF], axis=-1)
    words = philox(counters.reshape(-1, 4), seed % 2**64)
    bits = (words[:, 0] << np.uint64(21)) | (words[:, 1] >> np.uint64(11))
    return (bits.astype(np.float64) * 2.0**-53).reshape(steps.shape)
