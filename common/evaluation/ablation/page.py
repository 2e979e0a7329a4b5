"""What ablations came to: a picture and a table each, and one table against the paper."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from common.evaluation.ablation.compare import (
    HELD_OUT,
    RUBRIC,
    Outcome,
    against_paper,
    facts_of,
    means_of,
    paired,
    verdict,
)
from common.evaluation.ablation.spec import Ablation
from common.evaluation.formatting import cell
from common.evaluation.plots import COLORS, figure_of, finish_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Found = Mapping[str, Mapping[int, Outcome]]
"""Arm -> seed -> outcome."""
FACTS = {
    "reward_accuracy": ("reward accuracy (share of held-out pairs)", "{:.3f}"),
    "kl": ("KL (nats a response)", "{:.2f}"),
    "length": ("length (tokens)", "{:.1f}"),
    "entropy": ("entropy (nats a token)", "{:.3f}"),
}
NOTE = (
    "± behind a verdict is half the 95 % interval of the mean difference, by Student's t over "
    "seeds, each seed compared with itself; ± behind a mean is the deviation over seeds. Where "
    "seeds share their held-out prompts, how other prompts would come out is not in it. With many "
    "comparisons one in twenty comes out apart by chance alone."
)
BY_REWARD = (
    "No rubric scored these answers, but reward models, which PPO trained against. Runs are "
    "compared only where the same one scored both; an arm's means are on its own models' scales."
)


def picture(ablation: Ablation, found: Found) -> bytes:
    """A PNG: every seed's held-out score by arm and measure, and the curves of training."""
    figure, (scores, curves) = figure_of(2)
    measures = _measures(found)
    arms = [arm for arm in ablation.arms if found.get(arm)]
    outcomes = [o for arm in arms for o in found[arm].values()]
    judges = _judges(found)
    for number, arm in enumerate(arms):
        color = COLORS[number % len(COLORS)]
        _score_points(scores, found[arm], measures, (number - (len(arms) - 1) / 2) * 0.16, color)
        steps, mean = _mean_curve(found[arm])
        curves.plot(steps, mean, color=color, label=arm, linewidth=1.5, marker="o", ms=3)
    for number, measure in enumerate(measures):
        before = [o.before[measure] for o in _first(ablation, found) if measure in o.before]
        if before:
            scores.plot(
                [number - 0.4, number + 0.4], [np.mean(before)] * 2, color="0.5", ls="--", lw=1
            )
    scores.set_xticks(range(len(measures)), [_title(m) for m in measures])
    finish_axes(
        scores,
        f"{ablation.title}: held-out score after RLHF\n(a dot: a seed; bar: mean; dashed: SFT)",
        "",
        "overall, 0–100" if judges == {RUBRIC} else "reward model's score, raw",
    )
    held_out = all(o.curve_of == HELD_OUT for o in outcomes)
    finish_axes(
        curves,
        "During training, mean of the seeds",
        "PPO step",
        "held-out score, 0–100" if held_out else "reward of the rollouts, deviations",
    )
    curves.legend(fontsize=8, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _score_points(
    axes: "Axes", outcomes: Mapping[int, Outcome], measures: list[str], offset: float, color: str
) -> None:
    for number, measure in enumerate(measures):
        values = [o.mean(measure) for o in outcomes.values() if measure in o.scores]
        if values:
            x = number + offset
            axes.plot([x] * len(values), values, "o", color=color, ms=4, alpha=0.6)
            axes.plot([x - 0.06, x + 0.06], [np.mean(values)] * 2, color=color, linewidth=2.5)


def _mean_curve(outcomes: Mapping[int, Outcome]) -> tuple[list[int], list[float]]:
    """Over the steps that every seed has."""
    curves = [dict(zip(*o.curve, strict=True)) for o in outcomes.values()]
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    return steps, [float(np.mean([curve[step] for curve in curves])) for step in steps]


def section(ablation: Ablation, found: Found, image: str) -> str:
    """An ablation in Markdown: question, verdicts, picture, figures of every arm."""
    measures = _measures(found)
    lines = [f"## {ablation.title}", "", ablation.question, ""]
    base, digits = found.get(ablation.base, {}), _digits(found)
    for arm in ablation.others:
        said = [
            f"{_title(m)}: **{verdict(paired(found.get(arm, {}), base, m), digits)}**"
            for m in ("domain", "general")
            if m in measures
        ]
        lines.append(f"- *{cell(arm)}* against *{cell(ablation.base)}*: {'; '.join(said)}")
    if _judges(found) != {RUBRIC}:
        lines += ["", BY_REWARD]
    lines += ["", f"![{cell(ablation.title)}]({image})", ""]
    facts = {arm: facts_of(list(found[arm].values())) for arm in ablation.arms if found.get(arm)}
    shown = [key for key in FACTS if any(key in values for values in facts.values())]
    heads = [_title(m) for m in measures] + [FACTS[key][0] for key in shown]
    lines += [f"| arm | seeds | {' | '.join(heads)} |", f"|---|--:|{'--:|' * len(heads)}"]
    for arm, values in facts.items():
        outcomes = list(found[arm].values())
        means = (means_of(outcomes, m) for m in measures)
        cells = [f"{mean:.{digits}f} ± {spread:.{digits}f}" for mean, spread in means]
        cells += [FACTS[key][1].format(values[key]) if key in values else "–" for key in shown]
        seeds = ", ".join(str(o.seed) for o in outcomes)
        lines.append(f"| {cell(arm)} | {seeds} | {' | '.join(cells)} |")
    for arm in ablation.arms:
        if not found.get(arm):
            lines.append(f"| {cell(arm)} | none finished | {' | '.join('–' for _ in heads)} |")
    return "\n".join(lines) + "\n"


def overview(results: Mapping[str, tuple[Ablation, Found]]) -> str:
    """Every comparison in one table, beside what the paper says of it."""
    lines = [
        "| ablation | arm, against | seeds | in domain | general | the paper | |",
        "|---|---|--:|---|---|---|---|",
    ]
    for ablation, found in results.values():
        base, digits = found.get(ablation.base, {}), _digits(found)
        for arm in ablation.others:
            own = found.get(arm, {})
            claim = ablation.paper.get(arm)
            says = f"{claim.says} ({claim.where})" if claim else "–"
            domain, general = (paired(own, base, m) for m in ("domain", "general"))
            lines.append(
                f"| {cell(ablation.title)} | {cell(arm)}, against {cell(ablation.base)} "
                f"| {domain.seeds if domain else 0} | {verdict(domain, digits)} "
                f"| {verdict(general, digits)} | {cell(says)} "
                f"| {against_paper(domain, claim.says if claim else None)} |"
            )
    return "\n".join(lines) + "\n"


def page(results: Mapping[str, tuple[Ablation, Found]], images: Mapping[str, str]) -> str:
    """The whole page in Markdown.

    Args:
        results: ablation -> itself and what was found.
        images: ablation -> link of its picture.
    """
    parts = ["# Ablations\n", overview(results), NOTE + "\n"]
    for name, (ablation, found) in results.items():
        parts.append(section(ablation, found, images[name]))
    return "\n".join(parts)


def _measures(found: Found) -> list[str]:
    """In-domain mean first, then every split."""
    outcomes = [o for seeds in found.values() for o in seeds.values()]
    return list(dict.fromkeys(m for o in outcomes for m in o.scores))


def _first(ablation: Ablation, found: Found) -> list[Outcome]:
    """The base arm's outcomes, or those of the first arm that has some: arms may differ in SFT."""
    arms = [found.get(arm, {}) for arm in (ablation.base, *ablation.arms)]
    return list(next(filter(None, arms)).values())


def _judges(found: Found) -> set[str]:
    return {o.judge for seeds in found.values() for o in seeds.values()}


def _digits(found: Found) -> int:
    """Behind the point: a reward model's scores are a few units wide, not a hundred."""
    return 1 if _judges(found) == {RUBRIC} else 2


def _title(measure: str) -> str:
    return {"domain": "in domain"}.get(measure, measure)
