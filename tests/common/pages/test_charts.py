"""Charts: points stand where their values are, gaps stay gaps, words say the numbers."""

import math
import re

import numpy as np
import pytest

from common.pages.charts import (
    Alarm,
    Axes,
    Interval,
    Level,
    Line,
    histogram,
    interval_chart,
    line_chart,
    stacked,
)
from common.pages.scales import MOST_POINTS, Scale, limits, short, thinned, ticks
from tests.pages import Reader

AXES = Axes("Title", "step", "nats")


@pytest.mark.parametrize("ends", [(0, 1), (-3.7, 12.9), (0.001, 0.0042), (98, 100), (-5e6, 2e7)])
def test_ticks_are_round_inside_and_evenly_apart(ends):
    found = ticks(*ends)
    assert 3 <= len(found) <= 6
    assert all(ends[0] - 1e-9 <= t <= ends[1] + 1e-9 * abs(ends[1]) for t in found)
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])
    assert float(f"{steps[0]:.0e}") == pytest.approx(steps[0])  # one digit that counts


def test_axes_of_one_value_or_none_have_a_length():
    for values in ([], [0.0], [3.0, 3.0], [math.nan], [-1e-12, 1e-12]):
        low, high = limits(values)
        assert low < high and math.isfinite(low) and math.isfinite(high)
    assert limits([1.0, math.inf, 2.0])[1] < 3


def test_numbers_on_axes():
    shown = [short(x) for x in (0, 0.1234, -2.5, 1500, 12345678, 0.00001, 99.96)]
    assert shown == ["0", "0.123", "−2.5", "1\u202f500", "1.2e+07", "1e-05", "100"]


def test_thinning_keeps_the_ends_the_peaks_and_the_gaps():
    x = np.arange(10_000.0)
    y = np.sin(x / 500)
    y[[1234, 4321]] = 50.0, -50.0
    y[7000] = math.nan
    kept_x, kept_y = thinned(x, y)
    assert len(kept_x) <= 1.3 * MOST_POINTS and (np.diff(kept_x) > 0).all()
    assert {0.0, 1234.0, 4321.0, 7000.0, 9999.0} <= set(kept_x.tolist())
    assert all(b == y[int(a)] or math.isnan(b) for a, b in zip(kept_x, kept_y, strict=True))
    few = thinned(x[:5], y[:5])
    assert few[0].tolist() == [0, 1, 2, 3, 4]


def points(chart):
    """(x, y) of the circles, in pixels."""
    found = re.findall(r'<circle class="[^"]*" cx="([\d.]+)" cy="([\d.]+)"', chart)
    return [(float(x), float(y)) for x, y in found]


def test_points_stand_where_their_values_are():
    x, y = np.array([0.0, 5.0, 10.0]), np.array([1.0, 3.0, 2.0])
    chart = line_chart(AXES, [Line("a", x, y)])
    (x0, y0), (x1, y1), (x2, y2) = points(chart)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.1)
    assert y0 > y2 > y1  # downwards on the screen
    assert (y0 - y2) == pytest.approx(y2 - y1, abs=0.1)
    assert "a: from 1 to 2, lowest 1, highest 3" in chart
    Reader(chart)


def test_a_gap_stays_a_gap():
    y = np.array([1.0, 1.0, math.nan, 1.0, 1.0])
    chart = line_chart(AXES, [Line("a", np.arange(5.0), y)])
    (path,) = re.findall(r'class="line k0" d="([^"]*)"', chart)
    assert path.count("M") == 2 and path.count("L") == 2
    assert len(points(chart)) == 4


def test_alarms_stand_at_their_steps_and_are_told_in_words():
    alarms = (Alarm(5.0, "step 5: <b>KL</b> is high"), Alarm(500.0, "after the end"))
    axes = Axes("T", "step", "nats", alarms=alarms, levels=(Level(1.5, "limit"),))
    chart = line_chart(axes, [Line("a", np.array([0.0, 10.0]), np.array([1.0, 2.0]))])
    lines = re.findall(r'class="alarm" x1="([\d.]+)"', chart)
    (first, last) = [x for x, _ in points(chart)]
    assert [float(x) for x in lines] == [pytest.approx((first + last) / 2, abs=0.1)]
    text = Reader(chart).text
    assert "2 alarms" in text and "<b>KL</b> is high" in text and "limit" in text


def test_intervals_reach_from_end_to_end():
    rows = [Interval("x", 2.0, 1.0, 4.0), Interval("y <", 3.0, 3.0, 3.0, 1, few=True)]
    chart = interval_chart(Axes("T", "points", "", bounds=(0.0, 5.0)), rows)
    (low, high), _ = re.findall(r'class="whisker k\d" x1="([\d.]+)" x2="([\d.]+)"', chart)
    place = Scale(0.0, 5.0, 12, 448)
    assert [float(low), float(high), points(chart)[0][0]] == [place(1.0), place(4.0), place(2.0)]
    assert 'class="hollow k1"' in chart and "y &lt;" in chart


def test_histograms_are_shares_of_each_set():
    chart = histogram(AXES, [("a", [0.0] * 9 + [1.0]), ("b", [1.0]), ("none", [])], bins=2)
    tops = [
        re.findall(r"[\d.]+ ([\d.]+)", d) for d in re.findall(r'outline k\d" d="([^"]*)"', chart)
    ]
    floor = 250 - 36
    high = [[floor - float(y) for y in path] for path in tops[:2]]
    assert high[0][1] == pytest.approx(9 * high[0][3], rel=0.01)  # 90% and 10%
    assert max(high[1]) == pytest.approx(high[0][1] / 0.9, rel=0.01)
    assert "a: 10 values, mean 0.1" in chart and "none" not in chart


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_parts_of_a_whole_lie_upon_one_another(steps):
    x = np.arange(1.0, steps + 1)
    chart = stacked(AXES, x, [("low", np.full(steps, 1.0)), ("high", np.full(steps, 3.0))])
    low, high = (
        {float(y) for y in re.findall(r"[\d.]+ ([\d.]+)", d)}
        for d in re.findall(r'outline k\d" d="([^"]*)"', chart)
    )
    assert len(low) == len(high) == 1
    floor = 250 - 36
    assert floor - high.pop() == pytest.approx(4 * (floor - low.pop()), rel=0.01)


def test_nothing_to_draw_is_no_chart():
    nan = np.array([math.nan])
    assert line_chart(AXES, [Line("a", nan, nan)]) == ""
    assert line_chart(AXES, []) == interval_chart(AXES, []) == histogram(AXES, [("a", [])]) == ""
    assert stacked(AXES, np.array([]), []) == ""


def test_a_long_run_makes_no_longer_a_page():
    x = np.arange(30_000.0)
    y = np.random.default_rng(0).normal(size=x.size)
    band = line_chart(AXES, [Line("a", x, y, spread=np.full(x.size, 0.5))])
    assert len(band) < 30_000
    few = line_chart(AXES, [Line("a", x, np.round(y), joined=False)])
    assert len(few) < 60_000
    levels = {float(place.split(" ")[1]) for place in drawn_dots(few)}
    assert len(levels) == len(set(np.round(y)))  # none is lost


def drawn_dots(chart):
    path = re.search(r'class="dots[^"]*" d="M([^"]*)h0"', chart)[1]
    return path.split("h0M")
