"""The counter-based generator against Python integers and the published vectors."""

import numpy as np
import pytest

from common.hybrid_engine.draws import philox, uniform_draws

MASK = 2**32 - 1


def philox_by_definition(counter, key):
    """Ten rounds over Python integers, which do not overflow."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [
            (second >> 32) ^ c[1] ^ k[0],
            second & MASK,
            (first >> 32) ^ c[3] ^ k[1],
            first & MASK,
        ]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # from Random123's kat_vectors
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([MASK] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_published_vectors(counter, key, words):
    assert philox(np.array([counter], dtype=np.uint64), key)[0].tolist() == words
    assert philox_by_definition(counter, (key & MASK, key >> 32)) == words


def draw_by_definition(seed, stream, step):
    seed %= 2**64
    counter = [step & MASK, step >> 32, stream & MASK, stream >> 32]
    words = philox_by_definition(counter, (seed & MASK, seed >> 32))
    return ((words[0] << 21) | (words[1] >> 11)) / 2**53


def test_a_draw_depends_on_seed_stream_and_step():
    streams, first = np.array([0, 3, 2**40 + 5, 3]), np.array([0, 7, 2**33, 9])
    for seed in (0, 5, 2**63 + 11, -4):
        found = uniform_draws(seed, streams, first, 4)
        assert found.shape == (4, 4) and found.dtype == np.float64
        for row in range(4):
            for step in range(4):
                expected = draw_by_definition(seed, int(streams[row]), int(first[row]) + step)
                assert found[row, step] == expected


def test_draws_are_uniform_and_unlike():
    draws = uniform_draws(5, np.arange(400), np.zeros(400, dtype=int), 50)
    assert 0.0 <= draws.min() and draws.max() < 1.0
    assert len(np.unique(draws)) == 20_000
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # χ² with 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.03
