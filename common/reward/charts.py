"""The pictures of a reward model's diagnostics, each as a PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from common.evaluation.formatting import visible
from common.evaluation.plots import COLORS, figure_of, finish_axes
from common.reward.held_out import HeldOut
from common.reward.measures import centred

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL, LENGTH, LABELERS, OTHER = COLORS
FEW_PAIRS = 5
"""Points of fewer pairs are drawn hollow."""
MOST_POINTS = 2000
MARKERS = "osD^"
"""For lines beyond as many as there are colours."""
Rows = Sequence[tuple[str, Mapping[str, Any], str]]
"""(label, `Estimate.facts()`, colour)."""


def png_of(figure: "Figure") -> bytes:
    """A figure's PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def accuracy_chart(found: Mapping[str, Any]) -> bytes:
    """The model beside the length-only baseline and the labelers; by rank gap, by agreement.

    Args:
        found: of `common.reward.diagnostics.measure`.
    """
    rows: list[tuple[str, Mapping[str, Any], str]] = [("model", found["accuracy"], MODEL)]
    name = f"prefer the {found['length_only']['prefers']}"
    rows.append((name, found["length_only"]["accuracy"], LENGTH))
    if found["ceiling"]:
        rows.append(("one labeler, by the others", found["ceiling"], LABELERS))
    rows += [(f"model, rank gap {gap}", part, MODEL) for gap, part in found["by_gap"].items()]
    for w, part in (found["by_agreement"] or {}).items():
        rows.append((f"model, agreement W {w}", part, MODEL))
    for group, part in (found["by_support"] or {}).items():
        rows.append((f"model, {group} prefer it", part, MODEL))
    return interval_chart(rows, "Held-out pairs in the labelers' order, with 95% intervals")


def interval_chart(rows: Rows, title: str) -> bytes:
    """Shares below one another, each with its interval and count."""
    figure, (axes,) = figure_of(1)
    figure.set_figheight(1.0 + 0.34 * len(rows))
    for place, (_, part, color) in enumerate(rows):
        low, high = part["ci95"]
        full = part["count"] >= FEW_PAIRS
        axes.plot([low, high], [place, place], color=color, linewidth=2, alpha=0.6)
        axes.plot(
            part["value"], place, "o", color=color, markerfacecolor=color if full else "white", ms=7
        )
    labels = [f"{label}  ({part['count']})" for label, part, _ in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.axvline(0.5, color="0.4", linestyle="--", linewidth=1)
    finish_axes(axes, title, "share (in brackets: pairs; dashed: chance)", "")
    return png_of(figure)


def reliability_chart(found: Mapping[str, Any]) -> bytes:
    """Accuracy at each level of confidence, as scored and after the fitted factor.

    Args:
        found: of `common.reward.calibration.calibration`.
    """
    figure, (axes,) = figure_of(1)
    figure.set_size_inches(5.5, 4.6)
    axes.plot([0.5, 1], [0.5, 1], color="0.4", linestyle="--", linewidth=1, label="calibrated")
    for name, label, color in (
        ("curve", "σ(difference of scores)", MODEL),
        ("curve_after", "after one factor, other half of the prompts", OTHER),
    ):
        bins = found[name]
        xs, ys = ([b[key] for b in bins] for key in ("confidence", "accuracy"))
        axes.plot(xs, ys, color=color, linewidth=1.2, alpha=0.7, label=label)
        for x, y, b in zip(xs, ys, bins, strict=True):
            face = color if b["pairs"] >= FEW_PAIRS else "white"
            axes.plot(x, y, "o", color=color, markerfacecolor=face, ms=4 + min(b["pairs"], 60) / 12)
    axes.set_ylim(0, 1.03)
    finish_axes(axes, "Reliability: below the line is too sure", "confidence", "accuracy")
    return png_of(figure)


def length_chart(held_out: HeldOut) -> bytes:
    """Score against length, each less its prompt's mean."""
    r = held_out.responses
    chosen = np.random.default_rng(0).permutation(len(r.scores))[:MOST_POINTS]
    x, y = centred(r.lengths.astype(np.float64), r.prompts), centred(r.scores, r.prompts)
    figure, (axes,) = figure_of(1)
    axes.plot(x[chosen], y[chosen], ".", color=MODEL, ms=4, alpha=0.4)
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.axvline(0, color="0.7", linewidth=0.8)
    title = "Score against length within prompts: good is a cloud without a slope"
    finish_axes(axes, title, "characters more than the prompt's mean", "raw score, less the mean")
    return png_of(figure)


def score_chart(held_out: HeldOut) -> bytes:
    """Distribution of the scores of preferred and of other responses."""
    figure, (axes,) = figure_of(1)
    edges = np.histogram_bin_edges(held_out.scores, bins=40)
    for column, label, color in ((0, "preferred", MODEL), (1, "other", LENGTH)):
        axes.hist(held_out.scores[:, column], edges, color=color, alpha=0.45, label=label)
    finish_axes(axes, "Scores of the pairs' responses: good is apart", "raw score", "responses")
    return png_of(figure)


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
