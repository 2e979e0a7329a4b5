"""The pictures of a reward model's diagnostics, as charts of a page; and one PNG for a document."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from common.evaluation.formatting import visible
from common.evaluation.plots import COLORS, figure_of, finish_axes
from common.pages.charts import Axes, Interval, Level, Line, histogram, interval_chart, line_chart
from common.pages.html import Markup
from common.reward.measures import centred

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from common.reward.held_out import HeldOut

MODEL, LENGTH, LABELERS, OTHER = range(4)
"""Colours."""
FEW_PAIRS = 5
"""Points of fewer pairs are drawn hollow."""
MOST_POINTS = 2000
MARKERS = "osD^"
"""For lines beyond as many as there are colours."""
CHANCE = Level(0.5, "chance")


def png_of(figure: "Figure") -> bytes:
    """A figure's PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def accuracy_chart(found: Mapping[str, Any]) -> Markup:
    """The model beside the length-only baseline and the labelers; by rank gap, by agreement.

    Args:
        found: of `common.reward.diagnostics.measure`.
    """
    parts: list[tuple[str, Mapping[str, Any], int]] = [("model", found["accuracy"], MODEL)]
    name = f"prefer the {found['length_only']['prefers']}"
    parts.append((name, found["length_only"]["accuracy"], LENGTH))
    if found["ceiling"]:
        parts.append(("one labeler, by the others", found["ceiling"], LABELERS))
    parts += [(f"model, rank gap {gap}", part, MODEL) for gap, part in found["by_gap"].items()]
    for w, part in (found["by_agreement"] or {}).items():
        parts.append((f"model, agreement W {w}", part, MODEL))
    for group, part in (found.get("by_support") or {}).items():  # not in runs of earlier code
        parts.append((f"model, {group} prefer it", part, MODEL))
    rows = [
        Interval(
            f"{label} ({part['count']} pairs)",
            part["value"],
            *part["ci95"],
            colour,
            few=part["count"] < FEW_PAIRS,
        )
        for label, part, colour in parts
    ]
    title = "Held-out pairs in the labelers' order, with 95% intervals"
    axes = Axes(title, "share of pairs", "", levels=(CHANCE,), bounds=(0.0, 1.0))
    return interval_chart(axes, rows)


def reliability_chart(found: Mapping[str, Any]) -> Markup:
    """Accuracy at each level of confidence, as scored and after the fitted factor.

    Args:
        found: of `common.reward.calibration.calibration`.
    """
    lines = [Line("calibrated", np.array([0.5, 1.0]), np.array([0.5, 1.0]), colour=LABELERS)]
    for name, label, colour in (
        ("curve", "σ(difference of scores)", MODEL),
        ("curve_after", "after one factor, other half of the prompts", OTHER),
    ):
        bins = found[name]
        x, y = (np.array([b[key] for b in bins], dtype=float) for key in ("confidence", "accuracy"))
        told = tuple(
            f"confidence {b['confidence']:.2f}: accuracy {b['accuracy']:.2f}, {b['pairs']} pairs"
            for b in bins
        )
        few = tuple(b["pairs"] < FEW_PAIRS for b in bins)
        lines.append(Line(label, x, y, colour=colour, points=told, few=few))
    title = "Reliability: below the line is too sure"
    axes = Axes(title, "confidence", "accuracy, share of pairs", bounds=(0.0, 1.03))
    return line_chart(axes, lines)


def length_chart(held_out: "HeldOut") -> Markup:
    """Score against length, each less its prompt's mean."""
    r = held_out.responses
    chosen = np.random.default_rng(0).permutation(len(r.scores))[:MOST_POINTS]
    x, y = centred(r.lengths.astype(np.float64), r.prompts), centred(r.scores, r.prompts)
    title = "Score against length within prompts: good is a cloud without a slope"
    axes = Axes(title, "characters more than the prompt's mean", "raw score, less the mean")
    return line_chart(axes, [Line("responses", x[chosen], y[chosen], joined=False)])


def score_chart(held_out: "HeldOut") -> Markup:
    """Distribution of the scores of preferred and of other responses."""
    groups = [(n, held_out.scores[:, c]) for c, n in enumerate(("preferred", "other"))]
    title = "Scores of the pairs' responses: good is apart"
    return histogram(Axes(title, "raw score", "percent of each"), groups)


def scale_chart(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Held-out accuracy against the model's size and against the training pairs, with intervals.

    Args:
        rows: one of each size and share of the data: `size`, `parameters`, `fraction`, `pairs`, and
            `accuracy` and `length_only` as `Estimate.facts()`.
    """
    figure, all_axes = figure_of(2)
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    fractions = sorted({row["fraction"] for row in rows})
    for axes, x, group, names in (
        (all_axes[0], "parameters", "fraction", fractions),
        (all_axes[1], "pairs", "size", sizes),
    ):
        for number, name in enumerate(names):
            line = sorted((r for r in rows if r[group] == name), key=lambda r: r[x])
            values = [r["accuracy"]["value"] for r in line]
            ends = np.array([r["accuracy"]["ci95"] for r in line])
            errors = np.clip([values - ends[:, 0], ends[:, 1] - values], 0, None)
            aside = 1.02 ** (number - (len(names) - 1) / 2)  # so that intervals stand side by side
            axes.errorbar(
                [r[x] * aside for r in line],
                values,
                errors,
                fmt=MARKERS[number // len(COLORS) % len(MARKERS)] + "-",
                color=COLORS[number % len(COLORS)],
                alpha=0.8,
                capsize=3,
                ms=5,
                label=f"{100 * name:.4g}% of the prompts"
                if group == "fraction"
                else visible(name).replace("$", r"\$"),
            )
        lengths = rows[-1]["length_only"]["value"]
        axes.axhline(lengths, color="0.4", linestyle="--", linewidth=1, label="length alone")
        axes.set_xscale("log")
    title = "Held-out accuracy against size: good rises with it"
    finish_axes(all_axes[0], title, "weights", "share of pairs")
    title = "Held-out accuracy against data: still rising means more would help"
    finish_axes(all_axes[1], title, "training pairs", "share of pairs")
    return png_of(figure)
