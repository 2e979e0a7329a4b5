"""Axes: where ticks stand, how numbers are written, which points a curve needs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_POINTS = 400
"""Of a curve that is some 400 pixels wide."""


@dataclass(frozen=True)
class Scale:
    """From values to pixels, linear."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values in [low, high], at 1, 2 or 5 times a power of ten: at most `most` + 1."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def limits(values: Sequence[float], *, include: Sequence[float] = ()) -> tuple[float, float]:
    """The ends of an axis that shows all of these, with some air; never of length 0."""
    known = [v for v in (*values, *include) if math.isfinite(v)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    air = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    return low - air, high + air


def short(value: float) -> str:
    """A number on an axis or in a legend: three digits that count."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    if abs(value) >= 100_000 or abs(value) < 0.0005:
        return f"{value:.2g}"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.3g}'):g}"
    return text.replace(",", "\u202f").replace("-", "−")


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Fewer points that draw the same curve: each stretch's first, lowest, highest and last.

    Args:
        x, y: `[points]`; NaN in `y` is a gap, and stays one.
    """
    if len(x) <= most:
        return x, y
    kept: set[int] = set()
    for part in np.array_split(np.arange(len(x)), most // 4):
        values = y[part]
        kept |= {int(part[0]), int(part[-1])}
        if np.isnan(values).any():
            kept.add(int(part[np.isnan(values).argmax()]))
        if not np.isnan(values).all():
            kept |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
    places = np.array(sorted(kept))
    return x[places], y[places]
