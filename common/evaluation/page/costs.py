"""Time and memory, by stage and by phase."""

import numpy as np

from common.evaluation.formatting import duration, number
from common.evaluation.page.facts import RunFacts
from common.evaluation.page.overview import TITLES
from common.evaluation.run_files import STAGES, Series
from common.pages.charts import Axes, stacked
from common.pages.html import Markup, element, joined, notes, table

PHASES = ("generate", "score", "train")


def costs(run: RunFacts) -> Markup:
    """A row a stage; a PPO step by phase over training; memory by phase where it was planned."""
    rows = []
    for stage in STAGES:
        result = run.stages.get(stage)
        if result is None:
            continue
        planned = result.get("planned") or {}
        rows.append(
            (
                TITLES[stage],
                duration(result["seconds"]) if result.get("seconds") is not None else "–",
                _seconds(planned.get("seconds")),
                _seconds(result.get("checkpoint_seconds")),
                number(result.get("peak_megabytes"), 0),
                number(planned.get("megabytes"), 0),
                str(planned.get("phase") or "–"),
            )
        )
    if not rows:
        return Markup()
    heads = ("stage", "time", "planned", "of it saving", "peak, MB", "planned, MB", "most in")
    parts = [
        table("Time, and memory of the rank that needed most", heads, rows, text=(6,)),
        notes("Memory is above what importing the libraries takes; megabytes of 2²⁰ bytes."),
        element("div", _step_times(run), class_="charts"),
        _memory(run),
    ]
    return joined(parts)


def _step_times(run: RunFacts) -> Markup:
    series = run.metrics["rlhf"].series if "rlhf" in run.metrics else {}
    phases = [name for name in PHASES if f"time/{name}" in series]
    if not phases:
        return Markup()
    parts = [series[f"time/{name}"] for name in phases]
    whole = series.get("time/step")
    steps, values = aligned([*parts, whole] if whole is not None else parts)
    known = np.isfinite(values).all(axis=0)
    steps, values = steps[known], values[:, known]
    shown = list(zip(phases, values, strict=False))
    if whole is not None and steps.size:
        shown.append(("other", np.clip(values[-1] - values[:-1].sum(axis=0), 0.0, None)))
    axes = Axes("Time of a PPO step by phase: good is flat", "PPO step", "seconds a step")
    return stacked(axes, steps, shown)


def _memory(run: RunFacts) -> Markup:
    rows = [
        (TITLES[stage], phase, number(size, 0))
        for stage, result in run.stages.items()
        for phase, size in ((result.get("planned") or {}).get("phases") or {}).items()
    ]
    if not rows:
        return Markup()
    inside = table("Memory by phase, as planned", ("stage", "phase", "MB"), rows, text=(1,))
    return element("details", joined([element("summary", "Memory by phase, as planned"), inside]))


def aligned(several: list[Series]) -> tuple[np.ndarray, np.ndarray]:
    """Steps `[points]` that all have, and the values there `[series, points]`."""
    steps = several[0].steps
    for one in several[1:]:
        steps = np.intersect1d(steps, one.steps)
    return steps, np.stack([one.values[np.isin(one.steps, steps)] for one in several])


def _seconds(value: float | None) -> str:
    return "–" if value is None else duration(value) if value >= 10 else f"{value:.1f} s"
