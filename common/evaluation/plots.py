"""The curves of a run as PNGs, each titled with what a good one looks like.

Drawn on matplotlib's Agg canvas through `Figure`, not pyplot: no display is needed and no global
backend is changed. A metric that is missing leaves out its line, panel or whole figure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.evaluation.contenders import title
from common.evaluation.formatting import visible
from common.evaluation.health import MAX_KL_PER_SEQUENCE, MIN_EOS_RATE, MIN_REWARD_ACCURACY
from common.evaluation.run_files import Metrics, Series
from common.evaluation.summary import blocks_of, judged, splits_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

_DOTTED_UP_TO = 60
"""Series this short show their points: gaps and single values stay visible."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes: metric name -> its label; `limit` is a level worth a dashed line."""

    title: str
    unit: str
    lines: dict[str, str]
    limit: tuple[float, str] | None = None
    bounds: tuple[float, float] | None = None
    band: tuple[str, str] | None = None
    """(metric, its deviation): shaded between metric ± deviation."""


@dataclass(frozen=True)
class Curves:
    """One PNG of panels over a stage's steps."""

    name: str
    stage: str
    steps: str
    panels: tuple[Panel, ...]


CURVES = (
    Curves(
        "reward",
        "rlhf",
        "PPO step",
        (
            Panel(
                "Reward score of the rollouts: good rises, then levels off",
                "normalized score",
                {
                    "reward/score": "score (band: ± 1 deviation)",
                    "reward/total": "score − KL penalty",
                    "eval/score": "score, held-out prompts",
                },
                band=("reward/score", "reward/score_std"),
            ),
            Panel(
                "Rubric on held-out prompts: good rises with the reward; apart from it is hacking",
                "overall, 0–100",
                {"eval/overall": "overall, held-out prompts"},
            ),
        ),
    ),
    Curves(
        "kl",
        "rlhf",
        "PPO step",
        (
            Panel(
                "KL to the SFT model: good starts at 0, rises slowly and levels off",
                "nats a sequence",
                {"kl/sequence_k1": "k1", "kl/sequence_k3": "k3"},
                limit=(MAX_KL_PER_SEQUENCE, "limit"),
            ),
            Panel("KL coefficient β", "nats⁻¹", {"kl/coefficient": "β"}),
        ),
    ),
    Curves(
        "length",
        "rlhf",
        "PPO step",
        (
            Panel(
                "Response length: good settles well below the limit on new tokens",
                "tokens",
                {
                    "response/length": "rollouts",
                    "eval/response_length": "held-out prompts",
                },
            ),
            Panel(
                "Responses that end by themselves: good stays near 1",
                "share",
                {"response/eos_rate": "rollouts", "eval/eos_rate": "held-out prompts"},
                limit=(MIN_EOS_RATE, "limit"),
                bounds=(-0.03, 1.03),
            ),
        ),
    ),
    Curves(
        "entropy",
        "rlhf",
        "PPO step",
        (
            Panel(
                "Entropy of the policy: good falls gently; a drop to 0 is collapse",
                "nats a token",
                {"policy/entropy": "entropy"},
            ),
        ),
    ),
    Curves(
        "value",
        "rlhf",
        "PPO step",
        (
            Panel("Value loss: good falls, then stays low", "loss", {"value/loss": "value loss"}),
            Panel(
                "Explained variance of the returns: good nears 1; below 0 is worse than a constant",
                "share",
                {"value/explained_variance": "explained variance"},
                limit=(0.0, "no better than a constant"),
            ),
        ),
    ),
    Curves(
        "policy_update",
        "rlhf",
        "PPO step",
        (
            Panel(
                "Clipped shares: good is small and not 0",
                "share of tokens",
                {
                    "policy/clip_fraction": "policy",
                    "value/clip_fraction": "value",
                },
            ),
            Panel(
                "Approximate KL of one update: good stays low, without spikes",
                "nats a token",
                {"policy/approx_kl": "old policy to new"},
            ),
        ),
    ),
    Curves(
        "sft",
        "sft",
        "optimizer step",
        (
            Panel(
                "SFT loss: good falls; held-out rising again is overfitting",
                "nats a token",
                {"train/loss": "training", "eval/loss": "held out"},
            ),
            Panel(
                "Held-out perplexity: good falls and flattens",
                "perplexity",
                {"eval/perplexity": "held out"},
            ),
        ),
    ),
    Curves(
        "reward_model",
        "reward",
        "optimizer step",
        (
            Panel(
                "Reward model, pairs ordered as the labelers did: good is well above chance",
                "share",
                {"train/accuracy": "training", "eval/accuracy": "held out"},
                limit=(MIN_REWARD_ACCURACY, "limit, held out"),
            ),
            Panel(
                "Ranking loss: good falls; held-out rising again is overfitting",
                "loss",
                {"train/loss": "training", "eval/loss": "held out"},
            ),
        ),
    ),
    Curves(
        "dpo",
        "dpo",
        "optimizer step",
        (
            Panel(
                "DPO loss: good falls from ln 2; held-out rising again is overfitting",
                "loss",
                {"train/loss": "training", "eval/loss": "held out"},
                limit=(math.log(2.0), "ln 2: the reference"),
            ),
            Panel(
                "Implicit rewards: good parts chosen from rejected; both far below 0 is drift",
                "reward",
                {"train/chosen_reward": "chosen", "train/rejected_reward": "rejected"},
            ),
            Panel(
                "Pairs in the right order by implicit reward: good is well above chance",
                "share",
                {"train/accuracy": "training", "eval/accuracy": "held out"},
                limit=(0.5, "chance"),
            ),
        ),
    ),
)


def make_plots(
    folder: Path, metrics: Mapping[str, Metrics], summary: dict[str, Any]
) -> dict[str, Path]:
    """Draws what there is data for; name -> PNG, in the order in which a reader wants them.

    Args:
        folder: where the PNGs go; made if need be.
        metrics: stage -> what `read_metrics` gave.
        summary: of `build_summary`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figure | None] = {"evaluation": _evaluation(summary["evaluation"])}
    for curves in CURVES:
        series = metrics[curves.stage].series if curves.stage in metrics else {}
        figures[curves.name] = _curves(curves, series)
    figures["time"] = _time(metrics["rlhf"].series if "rlhf" in metrics else {})
    drawn = {}
    for name, figure in figures.items():
        if figure is not None:
            drawn[name] = folder / f"{name}.png"
            figure.savefig(drawn[name], dpi=110)
    return drawn


def _curves(curves: Curves, series: dict[str, Series]) -> "Figure | None":
    panels = [panel for panel in curves.panels if any(_drawable(series, n) for n in panel.lines)]
    if not panels:
        return None
    figure, all_axes = figure_of(len(panels), share_steps=True)
    for panel, axes in zip(panels, all_axes, strict=True):
        for color, (name, label) in zip(COLORS, panel.lines.items(), strict=False):
            if _drawable(series, name):
                _line(axes, series[name], label, color)
        if panel.band is not None:
            _band(axes, series, *panel.band)
        if panel.limit is not None:
            level, meaning = panel.limit
            axes.axhline(level, color="0.4", linestyle="--", linewidth=1, label=meaning)
        if panel.bounds is not None:
            axes.set_ylim(*panel.bounds)
        finish_axes(axes, panel.title, curves.steps, panel.unit)
    return figure


def _line(axes: "Axes", series: Series, label: str, color: str) -> None:
    marker = "o" if series.steps.size <= _DOTTED_UP_TO else None
    axes.plot(
        series.steps, series.values, color=color, label=label, marker=marker, ms=3, linewidth=1.5
    )


def _band(axes: "Axes", series: dict[str, Series], name: str, deviation: str) -> None:
    if not (_drawable(series, name) and _drawable(series, deviation)):
        return
    steps, (middle, width) = _aligned([series[name], series[deviation]])
    axes.fill_between(steps, middle - width, middle + width, color=COLORS[0], alpha=0.12, lw=0)


def _time(series: dict[str, Series]) -> "Figure | None":
    """Seconds of a PPO step by phase, stacked; `other` is what the whole step has beyond them."""
    phases = [name for name in ("generate", "score", "train") if f"time/{name}" in series]
    if not phases:
        return None
    parts = [series[f"time/{name}"] for name in phases]
    whole = series.get("time/step")
    steps, values = _aligned([*parts, whole] if whole is not None else parts)
    known = np.isfinite(values).all(axis=0)
    steps, values = steps[known], values[:, known]
    if steps.size == 0:
        return None
    labels = [f"{name} ({share.mean():.2f} s)" for name, share in zip(phases, values, strict=False)]
    if whole is not None:
        rest = np.clip(values[-1] - values[:-1].sum(axis=0), 0.0, None)
        values = np.vstack([values[:-1], rest])
        labels.append(f"other ({rest.mean():.2f} s)")
    figure, (axes,) = figure_of(1)
    if steps.size == 1:
        axes.bar(steps, values[0], label=labels[0], color=COLORS[0])
        for i in range(1, len(values)):
            axes.bar(steps, values[i], bottom=values[:i].sum(0), label=labels[i], color=COLORS[i])
    else:
        axes.stackplot(steps, values, labels=labels, colors=COLORS, alpha=0.85)
        axes.set_xlim(steps[0], steps[-1])
    finish_axes(
        axes, "Time of a PPO step by phase: good is flat (in brackets: mean)", "PPO step", "s"
    )
    axes.legend(
        fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True
    )
    return figure


def _evaluation(evaluation: dict[str, Any]) -> "Figure | None":
    """All contenders side by side a split, with intervals; one panel for each kind of judge."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for suffix, splits in (
        ("sampled", splits_of(evaluation)),
        ("greedy", evaluation.get("greedy", {})),
    ):
        for name, split in splits.items():
            if split["judge"] is not None:
                shown = visible(name).replace("$", r"\$")
                groups.setdefault(split["judge"], []).append((f"{shown}\n{suffix}", split))
    if not groups:
        return None
    figure, all_axes = figure_of(len(groups))
    for (judge, splits), axes in zip(groups.items(), all_axes, strict=True):
        blocks = [blocks_of(split) for _, split in splits]
        models = list(dict.fromkeys(model for found in blocks for model in found))
        for number, model in enumerate(models):
            offset = min(0.24, 0.8 / len(models)) * (number - (len(models) - 1) / 2)
            label, color = visible(title(model)).replace("$", r"\$"), COLORS[number % len(COLORS)]
            points = [
                (place + offset, *judged(found[model], judge))
                for place, found in enumerate(blocks)
                if found.get(model) is not None and judged(found[model], judge)[0] is not None
            ]
            if points:
                places, means, intervals = zip(*points, strict=True)
                # A percentile interval need not hold the mean in extreme cases: no negative bars.
                errors = np.clip(
                    [[m - lo, hi - m] for m, (lo, hi) in zip(means, intervals, strict=True)],
                    0,
                    None,
                ).T
                axes.errorbar(
                    places, means, errors, fmt="o", color=color, capsize=4, ms=6, label=label
                )
                for place, mean in zip(places, means, strict=True):
                    axes.annotate(
                        f"{mean:.1f}" if judge == "rubric" else f"{mean:.2f}",
                        (place, mean),
                        textcoords="offset points",
                        xytext=(-7 if offset < 0 else 7, 0),
                        ha="right" if offset < 0 else "left",
                        va="center",
                        fontsize=8,
                        color=color,
                    )
        axes.set_xticks(range(len(splits)), [name for name, _ in splits])
        axes.set_xlim(-0.6, len(splits) - 0.4)
        rubric = judge == "rubric"
        finish_axes(
            axes,
            "Held-out prompts, 95% intervals: good is RLHF above SFT"
            if rubric
            else "Reward model's score (PPO was trained on it: no independent evidence)",
            "",
            "overall, 0–100" if rubric else "reward score",
        )
    return figure


def figure_of(panels: int, share_steps: bool = False) -> tuple["Figure", list["Axes"]]:
    """A figure of panels below one another, on no display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.4 + 2.9 * panels), layout="constrained")
    return figure, list(figure.subplots(panels, 1, squeeze=False, sharex=share_steps)[:, 0])


def finish_axes(axes: "Axes", title: str, steps: str, unit: str) -> None:
    """Title, labels of both axes, a grid; a legend where there are several lines."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(steps)
    axes.set_ylabel(unit)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(fontsize=8, frameon=False)


def _drawable(series: dict[str, Series], name: str) -> bool:
    return name in series and bool(np.isfinite(series[name].values).any())


def _aligned(several: list[Series]) -> tuple[np.ndarray, np.ndarray]:
    """Steps `[points]` that all have, and the values there `[series, points]`."""
    steps = several[0].steps
    for one in several[1:]:
        steps = np.intersect1d(steps, one.steps)
    return steps, np.stack([one.values[np.isin(one.steps, steps)] for one in several])
