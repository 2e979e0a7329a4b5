"""How far labelers agree: Krippendorff's alpha and Kendall's tau-b, with ties.

Kendall's W is in `common.data.agreement`. A rank is 1 for the best response; tied responses share
the mean of their places.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


def krippendorffs_alpha(
    units: Iterable[Sequence[float]] | Mapping[tuple[float, ...], int],
) -> float | None:
    """Reliability of ordinal values: 1 − observed / expected disagreement.

    Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, section D, with the ordinal
    difference: the square of how many values lie between two, counting half of either's own.

    Args:
        units: for each thing judged, the values that it got, from any number of labelers; or how
            often each list of values came up, for of a large project few differ.

    Returns:
        1: perfect; 0: as if drawn by chance; below 0: systematic disagreement. None where it is
        not defined: no unit with two values, or one value throughout.
    """
    counted = units if isinstance(units, Mapping) else Counter(map(tuple, units))
    pairable = {unit: times for unit, times in counted.items() if len(unit) >= 2}
    frequency: Counter[float] = Counter()
    for unit, times in pairable.items():
        for value in unit:
            frequency[value] += times
    values = sorted(frequency)
    # The middle of each value's own stretch, when all values lie in a row by size.
    middles = {}
    before = 0
    for value in values:
        middles[value] = before + frequency[value] / 2
        before += frequency[value]
    total = before

    observed = 0.0
    for unit, times in sorted(pairable.items()):  # the same to the last bit in whatever order
        places = [middles[value] for value in unit]
        mean = sum(places) / len(places)
        # Σ over ordered pairs of (a − b)² is 2·len·Σ(a − mean)².
        spread = sum((place - mean) ** 2 for place in places)
        observed += times * 2 * len(places) * spread / (len(places) - 1)
    mean = sum(frequency[v] * middles[v] for v in values) / total if total else 0.0
    spread = sum(frequency[v] * (middles[v] - mean) ** 2 for v in values)
    expected = 2 * total * spread / (total - 1) if total > 1 else 0.0
    return 1 - observed / expected if expected > 0 else None


def kendalls_tau_b(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Rank correlation of two labelers, corrected for ties (Kendall 1945).

    (concordant − discordant) / √((pairs not tied in a)·(pairs not tied in b)).

    Args:
        a, b: `[responses]`, ranks or any values of which lower is better in both.

    Returns:
        −1 to 1; None where either tied everything.
    """
    agreed = untied_a = untied_b = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        first, second = _sign(a[i] - a[j]), _sign(b[i] - b[j])
        agreed += first * second
        untied_a += first != 0
        untied_b += second != 0
    most = math.sqrt(untied_a * untied_b)
    return agreed / most if most else None


def share_agreed(ranks: Sequence[float], known: Sequence[float]) -> float | None:
    """Share of the pairs with a known order that a labeler put in that order; a tie counts half.

    Args:
        ranks, known: `[responses]`.

    Returns:
        0 to 1; None where everything is tied in `known`.
    """
    points = []
    for i, j in itertools.combinations(range(len(known)), 2):
        right = _sign(known[i] - known[j])
        if right:
            points.append((1 + right * _sign(ranks[i] - ranks[j])) / 2)
    return sum(points) / len(points) if points else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
