"""Several runs on one page: what was set otherwise, curves over one another, scores by prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.evaluation.contenders import in_order, title
from common.evaluation.diagnosis import NAMES
from common.evaluation.formatting import duration, fact, number
from common.evaluation.page.build import asset, warnings
from common.evaluation.page.curves import BEFORE, LENGTH, REWARD, STEPS, UPDATES, drawable, grid
from common.evaluation.page.facts import RunFacts
from common.evaluation.page.overview import TITLES, left_out
from common.evaluation.page.scores import JUDGES, paired, with_interval
from common.evaluation.run_files import DECODINGS, STAGES, Response
from common.evaluation.statistics import bootstrap_ci, mean_by_prompt, win_tie_loss
from common.pages.charts import Axes, Line, line_chart
from common.pages.html import Markup, contents, element, joined, notes, page, section, table

MISSING = "–"


def comparison(runs: Sequence[RunFacts]) -> str:
    """The page's HTML; the first run is what the others are held against."""
    names = labels(runs)
    panels = [("Reward and KL", REWARD), ("Length and entropy", LENGTH)]
    panels += [("Critic and updates", UPDATES), ("SFT, reward model, DPO", BEFORE)]
    parts = [
        ("verdicts", "Verdicts", [_verdicts(runs, names)]),
        ("settings", "Settings that differ", [_settings(runs, names)]),
        ("scores", "Held-out scores", [_scores(runs, names)]),
        *(
            (f"curves-{place}", words, [_curves(runs, names, group)])
            for place, (words, group) in enumerate(panels)
        ),
    ]
    sections = {(name, words): section(name, words, *inside) for name, words, inside in parts}
    heading = f"{len(runs)} runs compared"
    odd = [f"{n}: {line}" for run, n in zip(runs, names, strict=True) for line in left_out(run)]
    held = notes(f"Held against {names[0]}, the first one.")
    head = [element("h1", heading), held, warnings(odd)]
    main = element("main", joined([*head, *sections.values()]), id="main")
    bar = contents([link for link, text in sections.items() if text])
    return page(heading, joined([bar, main]), style=asset("report.css"))


def labels(runs: Sequence[RunFacts]) -> list[str]:
    """Each run's folder; with folders above it where several have the same name."""
    paths = [run.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, paths)) + 1):
        found = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(found)) == len(found):
            return found
    return [f"{run.name} ({place})" for place, run in enumerate(runs, start=1)]


def different_settings(runs: Sequence[RunFacts]) -> list[tuple[str, str, list[Any]]]:
    """(stage, setting, its value in each run) where these are not all the same.

    What a run does not have, a stage or a setting that came later, is nothing to compare.
    """
    found = []
    for stage in STAGES:
        have = [run.settings[stage] for run in runs if stage in run.settings]
        if len(have) < 2:
            continue
        for name in dict.fromkeys(name for settings in have for name in settings):
            values = [run.settings.get(stage, {}).get(name) for run in runs]
            known = [settings[name] for settings in have if name in settings]
            if any(value != known[0] for value in known):
                found.append((stage, name, values))
    return found


def _verdicts(runs: Sequence[RunFacts], names: Sequence[str]) -> Markup:
    rows = []
    for run, name in zip(runs, names, strict=True):
        culprit = run.diagnosis.culprit
        rows.append(
            (
                name,
                run.diagnosis.verdict,
                NAMES[culprit] if culprit else "nobody",
                run.diagnosis.because,
                fact(run.summary["seed"]) if run.summary["seed"] is not None else MISSING,
                duration(run.summary["seconds_total"]),
            )
        )
    heads = ("run", "RLHF against its own SFT", "at fault", "because", "seed", "time")
    return table("What each run came to", heads, rows, text=(1, 2, 3))


def _settings(runs: Sequence[RunFacts], names: Sequence[str]) -> Markup:
    rows = [
        (f"{TITLES[stage]}: {name}", *(MISSING if v is None else fact(v) for v in values))
        for stage, name, values in different_settings(runs)
    ]
    if not rows:
        return notes("None, in the stages that two of them have.")
    return table("Settings that are not the same in all runs", ("setting", *names), rows)


def _curves(runs: Sequence[RunFacts], names: Sequence[str], panels: Sequence[Any]) -> Markup:
    """A panel's first metric that any run has, a line a run."""
    charts = []
    for panel in panels:
        for metric, label in panel.lines.items():
            lines = []
            for place, (run, name) in enumerate(zip(runs, names, strict=True)):
                series = run.metrics[panel.stage].series if panel.stage in run.metrics else {}
                if drawable(series, metric):
                    s = series[metric]
                    lines.append(Line(name, s.steps.astype(float), s.values, colour=place))
            if lines:
                words = panel.title if len(panel.lines) == 1 else f"{panel.title} ({label})"
                charts.append(
                    line_chart(
                        Axes(
                            words,
                            STEPS[panel.stage],
                            panel.unit.split("; band")[0],
                            panel.levels,
                            bounds=panel.bounds,
                        ),
                        lines,
                    )
                )
    return grid(charts)


def _scores(runs: Sequence[RunFacts], names: Sequence[str]) -> Markup:
    """Each run's models by split, and their differences from the first run's by prompt."""
    rows = []
    models = in_order(r.model for run in runs for r in run.responses)
    for decoding in DECODINGS:
        first, judges = runs[0], _judges(runs, decoding)
        for split, judge in judges.items():
            for model in models:
                base = text_means(first.responses, split, decoding, model, judge)
                for run, name in zip(runs, names, strict=True):
                    own = text_means(run.responses, split, decoding, model, judge)
                    if own:
                        against = () if run is first else difference(own, base, first, judge)
                        where = (split, "sampled" if decoding == "sample" else decoding)
                        rows.append((name, *where, title(model), *_mean(own, judge), *against))
    if not rows:
        return notes("No run has an evaluation.")
    width = 9
    rows = [row + (MISSING,) * (width - len(row)) for row in rows]
    heads = ("run", "split", "decoding", "model", "prompts", "mean", f"minus {names[0]}’s")
    heads = (*heads, "prompts in both", "wins / ties / losses")
    words = (
        "Differences are paired by prompt, over the prompts whose text both runs have, with 95% "
        "bootstrap intervals. Scores by a reward model compare only runs with the same one."
    )
    units = "; ".join(JUDGES.values())
    caption = f"Held-out scores, in the unit of the split's judge ({units})"
    return joined([table(caption, heads, rows, text=(1, 2, 3)), notes(words)])


def _judges(runs: Sequence[RunFacts], decoding: str) -> dict[str, str | None]:
    """The splits of all runs, each with the judge that all who have it share; else the reward."""
    found: dict[str, str | None] = {}
    for run in runs:
        part = run.evaluation if decoding == "sample" else run.evaluation.get("greedy", {})
        for name, split in part.items():
            if isinstance(split, dict) and "judge" in split:
                same = found.get(name, split["judge"]) == split["judge"]
                found[name] = split["judge"] if same else "reward_model"
    return found


def text_means(
    responses: Sequence[Response], split: str, decoding: str, model: str, judge: str | None
) -> dict[str, float]:
    """Prompt's text -> mean score of its answers: numbers of prompts differ between runs."""
    rows = [r for r in responses if (r.split, r.decoding, r.model) == (split, decoding, model)]
    scored = ((r.prompt, r.reward if judge == "reward_model" else r.overall) for r in rows)
    return mean_by_prompt((p, float(s)) for p, s in scored if s is not None)


def difference(
    own: dict[str, float], base: dict[str, float], first: RunFacts, judge: str | None
) -> tuple[str, ...]:
    """The paired difference with its interval, the prompts in both, wins, ties and losses."""
    gaps = paired(own, base)
    if not gaps:
        return (MISSING, "0", MISSING)
    gap = {"mean": float(np.mean(gaps)), "ci95": bootstrap_ci(gaps, first.summary["seed"] or 0)}
    counts = " / ".join(map(str, win_tie_loss(own, base)))
    digits = 2 if judge == "reward_model" else 1
    return (with_interval(gap, digits, sign=True), str(len(gaps)), counts)


def _mean(own: dict[str, float], judge: str | None) -> tuple[str, str]:
    digits = 2 if judge == "reward_model" else 1
    return (str(len(own)), number(float(np.mean(list(own.values()))), digits))
