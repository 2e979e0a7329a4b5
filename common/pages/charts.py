"""Charts as inline SVG: drawn in the page's colours, sharp on paper, with their numbers in words.

Series differ by colour and by dashes, so that neither colour-blind readers nor printers lose one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.pages.html import Markup, element, escaped, joined
from common.pages.scales import MOST_POINTS, Scale, limits, short, thinned, ticks

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 36
COLOURS = 6
DOTTED_UP_TO = 60
"""Curves this short show their points: gaps and single values stay visible."""
DOT = 2
"""Pixels across which the dots of very many points count as one."""
ROW = 33
"""Pixels of one row of an interval chart."""


@dataclass(frozen=True)
class Line:
    """One curve; NaN is a gap."""

    label: str
    x: np.ndarray
    """`[points]`."""
    y: np.ndarray
    """`[points]`."""
    spread: np.ndarray | None = None
    """`[points]`: shaded between y ± spread."""
    colour: int | None = None
    """By default its place among the lines."""
    points: tuple[str, ...] = ()
    """What each point is, where that is worth saying; then they are drawn as points."""
    joined: bool = True
    hollow: bool = False
    few: tuple[bool, ...] = ()
    """Which of the points are of so few that they are drawn hollow."""


@dataclass(frozen=True)
class Level:
    """A level worth a dashed line."""

    value: float
    label: str


@dataclass(frozen=True)
class Alarm:
    """Something that was found at a place on the x axis."""

    x: float
    text: str


@dataclass(frozen=True)
class Interval:
    """A value and how far it is known."""

    label: str
    value: float
    low: float
    high: float
    colour: int = 0
    few: bool = False
    """Of so few that it is drawn hollow."""


@dataclass(frozen=True)
class Axes:
    """What a chart says of itself; no axis without its unit."""

    title: str
    x: str
    y: str
    levels: tuple[Level, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    bounds: tuple[float, float] | None = None
    """Ends of the y axis."""
    include_x: tuple[float, ...] = ()
    """Places that the x axis reaches, beside those of the values."""


def line_chart(axes: Axes, lines: Sequence[Line]) -> Markup:
    """Curves over steps, or points in a plane."""
    known = [line for line in lines if np.isfinite(line.y).any()]
    if not known:
        return Markup()
    xs = np.concatenate([line.x[np.isfinite(line.y)] for line in known])
    low, high = limits([float(xs.min()), float(xs.max())], include=axes.include_x)
    over_steps = all(line.joined and not line.points for line in known)
    ends = [float(xs.min()), float(xs.max()), *axes.include_x]
    if over_steps and max(ends) > min(ends):  # no air before the first step
        low, high = min(ends), max(ends)
    across = Scale(low, high, LEFT, WIDTH - RIGHT)
    values = [v for line in known for v in _extent(line)]
    sides = axes.bounds or limits(values, include=[level.value for level in axes.levels])
    up = Scale(*sides, HEIGHT - BOTTOM, TOP)
    parts = [_frame(across, up, axes), *_alarms(axes.alarms, across)]
    parts += [_level(level, up) for level in axes.levels]
    legend = []
    for place, line in enumerate(known):
        colour = (place if line.colour is None else line.colour) % COLOURS
        parts.append(_curve(line, across, up, colour))
        dotted = bool(line.points) or not line.joined
        legend.append((line.label, _sample(colour, dotted, line.hollow)))
    legend += [(level.label, _SAMPLE_LEVEL) for level in axes.levels]
    if axes.alarms:
        legend.append((f"{len(axes.alarms)} alarm{'s' * (len(axes.alarms) > 1)}", _SAMPLE_ALARM))
    words = "; ".join(_in_words(line) for line in known)
    return _figure(axes, parts, legend if len(legend) > 1 else [], f"{words}.")


def interval_chart(axes: Axes, rows: Sequence[Interval]) -> Markup:
    """Values below one another, each with its interval; the x axis is the values'."""
    if not rows:
        return Markup()
    ends = axes.bounds or limits(
        [v for r in rows for v in (r.low, r.high)], include=[lv.value for lv in axes.levels]
    )
    height = TOP + ROW * len(rows) + BOTTOM
    across = Scale(*ends, 12, WIDTH - 12)
    parts = []
    for tick in ticks(*ends):
        x = across(tick)
        line = f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        parts += [line, _text(x, height - BOTTOM + 16, short(tick), "middle")]
    parts.append(_text(WIDTH / 2, height - 3, axes.x, "middle"))
    for level in axes.levels:
        x = across(level.value)
        parts.append(f'<line class="limit" x1="{x}" x2="{x}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    for place, row in enumerate(rows):
        y, c = TOP + ROW * place + 24, row.colour % COLOURS
        told = f"{row.label}: {short(row.value)} ({short(row.low)} to {short(row.high)})"
        dot = f"hollow k{c}" if row.few else f"f{c}"
        parts += [
            f'<line class="grid" x1="12" x2="{WIDTH - 12}" y1="{y}" y2="{y}"/>',
            _text(12, y - 9, row.label, "label"),
            f'<line class="whisker k{c}" x1="{across(row.low)}" '
            f'x2="{across(row.high)}" y1="{y}" y2="{y}"/>',
            f'<circle class="{dot}" cx="{across(row.value)}" cy="{y}" r="4.5">'
            f"<title>{escaped(told)}</title></circle>",
        ]
    words = "; ".join(
        f"{r.label} {short(r.value)} ({short(r.low)} to {short(r.high)})" for r in rows
    )
    legend = [(level.label, _SAMPLE_LEVEL) for level in axes.levels]
    return _figure(axes, parts, legend, f"{words}.", height)


def histogram(axes: Axes, groups: Sequence[tuple[str, Sequence[float]]], bins: int = 40) -> Markup:
    """Shares of several sets of values over the same bins, one upon another."""
    known = [(name, np.asarray(v, dtype=np.float64)) for name, v in groups]
    known = [(name, v[np.isfinite(v)]) for name, v in known]
    known = [(name, v) for name, v in known if v.size]
    if not known:
        return Markup()
    edges = np.histogram_bin_edges(np.concatenate([v for _, v in known]), bins=bins)
    heights = [100.0 * np.histogram(v, edges)[0] / v.size for _, v in known]
    across = Scale(float(edges[0]), float(edges[-1]), LEFT, WIDTH - RIGHT)
    up = Scale(0.0, 1.08 * max(float(h.max()) for h in heights), HEIGHT - BOTTOM, TOP)
    parts, legend, words = [_frame(across, up, axes)], [], []
    for place, ((name, values), shares) in enumerate(zip(known, heights, strict=True)):
        c = place % COLOURS
        corners = [(across(edges[0]), up(0))]
        for i, share in enumerate(shares):
            corners += [(across(edges[i]), up(share)), (across(edges[i + 1]), up(share))]
        corners.append((across(edges[-1]), up(0)))
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in corners)
        parts.append(f'<path class="bar f{c}" d="{path}Z"/><path class="outline k{c}" d="{path}"/>')
        mean = float(values.mean())
        legend.append((f"{name} (mean {short(mean)})", _sample(c)))
        words.append(f"{name}: {values.size} values, mean {short(mean)}")
    return _figure(axes, parts, legend, f"{'; '.join(words)}.")


def stacked(axes: Axes, x: np.ndarray, parts_of: Sequence[tuple[str, np.ndarray]]) -> Markup:
    """Parts of a whole over steps, upon one another.

    Args:
        x: `[steps]`.
        parts_of: (label, `[steps]`), from the bottom up.
    """
    if not len(x) or not parts_of:
        return Markup()
    if len(x) > 150:
        groups = np.array_split(np.arange(len(x)), 150)
        parts_of = [(n, np.array([v[g].mean() for g in groups])) for n, v in parts_of]
        x = np.array([x[g].mean() for g in groups])
    sums = np.cumsum([v for _, v in parts_of], axis=0)
    first, last = float(x[0]), float(x[-1])
    across = Scale(first, last if last > first else first + 1, LEFT, WIDTH - RIGHT)
    up = Scale(0.0, 1.06 * float(sums[-1].max()) or 1.0, HEIGHT - BOTTOM, TOP)
    drawn, legend, below = [], [], np.zeros(len(x))
    for place, ((name, values), top) in enumerate(zip(parts_of, sums, strict=True)):
        there = [f"{across(a):g} {up(b):g}" for a, b in zip(x, top, strict=True)]
        back = [f"{across(a):g} {up(b):g}" for a, b in zip(x[::-1], below[::-1], strict=True)]
        if len(x) == 1:
            there, back = (
                [there[0], f"{WIDTH - RIGHT} {up(top[0]):g}"],
                [
                    f"{WIDTH - RIGHT} {up(below[0]):g}",
                    back[0],
                ],
            )
        c = place % COLOURS
        outline = f'<path class="outline k{c}" d="M{"L".join(there)}"/>'
        drawn.append(f'<path class="bar f{c}" d="M{"L".join(there + back)}Z"/>{outline}')
        legend.append((f"{name} (mean {short(float(values.mean()))})", _sample(c)))
        below = top
    words = "; ".join(label for label, _ in legend)
    return _figure(axes, [_frame(across, up, axes), *drawn], legend, f"{words}.")


def _figure(
    axes: Axes,
    parts: Sequence[str],
    legend: Sequence[tuple[str, str]],
    words: str,
    height: int = HEIGHT,
) -> Markup:
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escaped(f"{axes.title}. {words}")}">{"".join(parts)}</svg>'
    )
    items = [element("li", joined([Markup(mark), label], "")) for label, mark in legend]
    head = joined([axes.title, element("small", axes.y)] if axes.y else [axes.title], " ")
    pieces = [element("figcaption", head), Markup(svg)]
    if items:
        pieces.append(element("ul", joined(items), class_="legend"))
    if axes.alarms:
        told = [element("li", alarm.text) for alarm in axes.alarms]
        pieces.append(
            element("details", joined([element("summary", "Alarms"), element("ul", joined(told))]))
        )
    return element("figure", joined(pieces), class_="chart")


def _frame(across: Scale, up: Scale, axes: Axes) -> str:
    parts = []
    for tick in ticks(up.low, up.high):
        y = up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(_text(LEFT - 6, y + 4, short(tick), "end"))
    floor = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
    for tick in ticks(across.low, across.high):
        x = across(tick)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{floor}" y2="{floor + 4}"/>')
        parts.append(_text(x, floor + 17, short(tick), "end" if x > WIDTH - 20 else "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, axes.x, "middle"))
    return "".join(parts)


def _curve(line: Line, across: Scale, up: Scale, colour: int) -> str:
    x, y = thinned(line.x, line.y)
    parts = []
    if line.spread is not None:
        ok = np.isfinite(line.y) & np.isfinite(line.spread)
        upper = thinned(line.x[ok], (line.y + line.spread)[ok])
        lower = thinned(line.x[ok], (line.y - line.spread)[ok])
        edge, ends = (np.concatenate([a, b[::-1]]) for a, b in zip(upper, lower, strict=True))
        if ok.any():
            corners = "L".join(
                f"{across(a):g} {up(min(max(b, up.low), up.high)):g}"
                for a, b in zip(edge, ends, strict=True)
            )
            parts.append(f'<path class="band f{colour}" d="M{corners}Z"/>')
    if line.joined:
        path, pen = "", "M"
        for a, b in zip(x, y, strict=True):
            if not np.isfinite(b):
                pen = "M"
                continue
            path += f"{pen}{across(a):g} {up(min(max(b, up.low), up.high)):g}"
            pen = "L"
        parts.append(f'<path class="line k{colour}" d="{path}"/>')
    if not line.joined and not line.points:
        places = [
            (across(a), up(min(max(b, up.low), up.high)))
            for a, b in zip(line.x.tolist(), line.y.tolist(), strict=True)
            if math.isfinite(b)
        ]
        if len(places) > MOST_POINTS:  # what lies on one another is drawn once
            places = list({(a // DOT, b // DOT): (a, b) for a, b in places}.values())
        dots = "".join(f"M{a:g} {b:g}h0" for a, b in places)
        parts.append(f'<path class="dots k{colour}" d="{dots}"/>')
    elif len(line.x) <= DOTTED_UP_TO:
        told = line.points or [
            f"{line.label}, {short(a)}: {short(b)}" for a, b in zip(x, y, strict=True)
        ]
        size = 4.5 if line.points else 2.6
        few = line.few or (line.hollow,) * len(line.x)
        kinds = [f"hollow k{colour}" if hollow else f"f{colour}" for hollow in few]
        parts += [
            f'<circle class="{kind}" cx="{across(a)}" cy="{up(min(max(b, up.low), up.high))}" '
            f'r="{size}"><title>{escaped(text)}</title></circle>'
            for a, b, text, kind in zip(line.x, line.y, told, kinds, strict=True)
            if np.isfinite(b)
        ]
    return "".join(parts)


def _alarms(alarms: Sequence[Alarm], across: Scale) -> list[str]:
    drawn = []
    for alarm in alarms:
        if across.low <= alarm.x <= across.high:
            x = across(alarm.x)
            drawn.append(
                f'<g><line class="alarm" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
                f'<path class="alarm-head" d="M{x - 5:g} {TOP - 8}h10l-5 9z"/>'
                f"<title>{escaped(alarm.text)}</title></g>"
            )
    return drawn


def _level(level: Level, up: Scale) -> str:
    if not up.low <= level.value <= up.high:
        return ""
    y = up(level.value)
    return f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'


def _extent(line: Line) -> list[float]:
    if line.spread is None:
        return line.y.tolist()
    return [*(line.y - line.spread).tolist(), *(line.y + line.spread).tolist(), *line.y.tolist()]


def _in_words(line: Line) -> str:
    ok = np.isfinite(line.y)
    x, y = line.x[ok], line.y[ok]
    if len(y) == 1:
        return f"{line.label}: {short(float(y[0]))} at {short(float(x[0]))}"
    return (
        f"{line.label}: from {short(float(y[0]))} to {short(float(y[-1]))}, lowest "
        f"{short(float(y.min()))}, highest {short(float(y.max()))}"
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escaped(text)}</text>'


def _sample(colour: int, dotted: bool = False, hollow: bool = False) -> str:
    mark = f'<path class="line k{colour}" d="M0 5h28"/>'
    if dotted:
        kind = f"hollow k{colour}" if hollow else f"f{colour}"
        mark = f'<circle class="{kind}" cx="14" cy="5" r="4"/>'
    return f'<svg viewBox="0 0 28 10" aria-hidden="true">{mark}</svg>'


_SAMPLE_LEVEL = (
    '<svg viewBox="0 0 28 10" aria-hidden="true"><path class="limit" d="M0 5h28"/></svg>'
)
_SAMPLE_ALARM = (
    '<svg viewBox="0 0 28 10" aria-hidden="true"><path class="alarm-head" d="M9 1h10l-5 9z"/></svg>'
)
