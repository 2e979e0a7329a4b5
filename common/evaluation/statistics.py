"""Intervals and win/tie/loss counts; those of responses have the prompt for their unit.

Several samples of one prompt are not independent of each other: they share its difficulty. So a
prompt's samples are averaged first, and prompts are what is resampled, paired and counted.
"""

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

import numpy as np

from common.evaluation.metrics.pairwise_accuracy.equation import correct
from common.evaluation.metrics.win_rate.equation import TIE_TOLERANCE, WinTieLoss, count_gaps

Prompt = TypeVar("Prompt", bound=Hashable)

Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
RESAMPLES = 2000
_NO_BLANKS = "\\u0e00-\\u0e7f\\u3040-\\u30ff\\u3400-\\u9fff"
"""Thai, kana and Chinese characters: writings that set no blanks between words."""
_WORDS = re.compile(rf"[{_NO_BLANKS}]|[^\W{_NO_BLANKS}]+|[^\w\s]")
_INDICES_AT_ONCE = 4_000_000
"""Bounds the memory of one draw (8 bytes an index) when there are very many prompts."""


def mean_by_prompt(pairs: Iterable[tuple[Prompt, float]]) -> dict[Prompt, float]:
    """Mean value of each prompt's samples, in the order in which prompts first appear.

    Args:
        pairs: (prompt, value of one sample).
    """
    values: dict[Prompt, list[float]] = {}
    for prompt, value in pairs:
        values.setdefault(prompt, []).append(value)
    return {prompt: sum(samples) / len(samples) for prompt, samples in values.items()}


def bootstrap_ci(
    values: Iterable[float],
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979), in the unit of `values`.

    Each resample draws as many values as there are, with replacement; the interval runs between
    the (1 − level)/2 and (1 + level)/2 quantiles of the resamples' means. For a paired difference
    give the differences.

    Resamples of n values that are all the same are the same, too, and would leave no width. With
    `bounds` the interval then tells what n draws can have missed: at most the share
    1 − ((1 − level)/2)^(1/n) of all values (Clopper and Pearson 1934, with none of n; for 95 % and
    20 values 17 %), which might lie at either bound.

    Args:
        values: one value a prompt, `[prompts]`.
        seed: the same seed and values give the same interval.
        bounds: least and greatest value possible.

    Raises:
        ValueError: no values, or one of them is not finite.
    """
    data = np.fromiter(values, dtype=np.float64)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError("bootstrap_ci needs at least one value, and finite ones only")
    if bounds and np.ptp(data) <= TIE_TOLERANCE:
        value, missed = float(data[0]), 1.0 - ((1.0 - level) / 2.0) ** (1.0 / data.size)
        return value - missed * (value - bounds[0]), value + missed * (bounds[1] - value)
    rng = np.random.default_rng(seed)
    rows = max(1, _INDICES_AT_ONCE // data.size)
    means = [
        data[rng.integers(data.size, size=(min(rows, resamples - done), data.size))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    tail = 100.0 * (1.0 - level) / 2.0
    low, high = np.percentile(np.concatenate(means), [tail, 100.0 - tail])
    return float(low), float(high)


def win_tie_loss(first: Mapping[Prompt, float], second: Mapping[Prompt, float]) -> WinTieLoss:
    """On how many prompts `first` is higher, equal (within `TIE_TOLERANCE`) and lower.

    Args:
        first, second: prompt -> its mean; only prompts in both are counted.
    """
    return count_gaps(first[prompt] - second[prompt] for prompt in first if prompt in second)


def repeated_share(text: str, size: int = 4) -> float:
    """1 − distinct / all n-grams of words: seq-rep-n of Welleck et al. 2019 (§6), on words.

    https://arxiv.org/abs/1908.04319. A word is a run of letters and digits; a sign, and a
    character of a writing without blanks (Chinese, Japanese, Thai), counts as one.

    Returns:
        0 to 1; 0 where there is no n-gram.
    """
    words = _WORDS.findall(text)
    grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def same_order(scores: Sequence[tuple[float, float]]) -> float | None:
    """The share of pairs of answers to one prompt that two judges order alike.

    Args:
        scores: of each answer, by the judge that is the yardstick and by the other one. Pairs that
            the first ties are passed over; ties of the second count a half.

    Returns:
        None where the first tells no two of them apart.
    """
    pairs = [
        (x, y) if a > b else (y, x)
        for (a, x), (b, y) in combinations(scores, 2)
        if abs(a - b) > TIE_TOLERANCE
    ]
    return float(correct(np.array(pairs)).mean()) if pairs else None


def wilson(share: float, draws: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927, https://doi.org/10.2307/2276774).

    (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n); unlike the usual one it does not shrink to
    nothing where all draws agree.
    """
    z2 = Z95**2 / draws
    middle = share + z2 / 2
    half = Z95 * math.sqrt(share * (1 - share) / draws + z2 / (4 * draws))
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))
