"""Held-out scores: SFT, RLHF and others by split, by criterion (the paper's Table 3), by task."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.evaluation.contenders import title
from common.evaluation.formatting import number
from common.evaluation.page.facts import RunFacts
from common.evaluation.run_files import HOW_TO_EVALUATE, Response
from common.evaluation.statistics import bootstrap_ci, mean_by_prompt, win_tie_loss
from common.evaluation.summary import REWARD_JUDGE_NOTE, blocks_of, compared, judged, splits_of
from common.pages.charts import Axes, Interval, interval_chart
from common.pages.html import Markup, element, joined, notes, table

DECODING = {"sample": "sampled", "greedy": "greedy"}
JUDGES = {"rubric": "rubric, points of 100", "reward_model": "reward model, raw score"}


def held_out(run: RunFacts) -> Markup:
    """The table SFT against RLHF, further contenders, and the chart of both."""
    rows = _splits(run)
    if not rows:
        if "evaluation" in run.outdated:
            why = run.outdated["evaluation"]
            return notes(f"Of an earlier model, and left out: {why}. Run the evaluation again.")
        return notes(
            "The run has no evaluation yet: SFT and RLHF were not compared. " + HOW_TO_EVALUATE
        )
    models = list(dict.fromkeys(m for *_, split in rows for m in blocks_of(split)))
    lines = []
    for name, decoding, split in rows:
        digits = _digits(split["judge"])
        difference, counts = "–", "–"
        if split["difference"] is not None:
            difference = with_interval(split["difference"], digits, sign=True)
            counts = f"{split['rlhf_wins']} / {split['ties']} / {split['rlhf_losses']}"
        scores = [_score(split, model, digits) for model in models]
        judge = {"rubric": "rubric", "reward_model": "reward model"}.get(split["judge"], "none")
        lines.append((name, decoding, str(split["prompts"]), *scores, difference, counts, judge))
    heads = ("split", "decoding", "prompts", *map(title, models), "RLHF − SFT")
    words = (
        "The rubric gives points of 100, the reward model a raw score. In brackets: 95% percentile "
        "bootstrap over prompts, each prompt's samples averaged first; differences are paired by "
        "prompt. A win is a prompt whose mean is strictly higher."
    )
    parts = [
        _chart(rows),
        table(
            "SFT against RLHF on held-out prompts",
            (*heads, "wins / ties / losses", "judge"),
            lines,
            text=(1, len(heads) + 1),
        ),
        notes(words),
    ]
    if any(split["judge"] == "reward_model" for *_, split in rows):
        parts.append(element("p", REWARD_JUDGE_NOTE, class_="warning"))
    parts += [_further(rows), _endings(rows)]
    return joined(parts)


def criteria(run: RunFacts) -> Markup:
    """The paper's Table 3, a table a split: a row a criterion, a column a model, overall last."""
    tables = []
    decoding, splits = compared(run.evaluation)
    for name, split in splits.items():
        blocks = {m: b for m, b in blocks_of(split).items() if b is not None and b["criteria"]}
        if not blocks:
            continue
        gaps = (split["difference"] or {}).get("criteria") or {}
        names = list(dict.fromkeys(n for b in blocks.values() for n in b["criteria"]))
        rows = [
            (
                criterion,
                *(number(b["criteria"].get(criterion)) for b in blocks.values()),
                with_interval(gaps.get(criterion), 1, sign=True),
            )
            for criterion in names
        ]
        overall = [number(b["overall"]) for b in blocks.values()]
        rows.append(("overall", *overall, with_interval(split["difference"], 1, sign=True)))
        heads = ("criterion", *map(title, blocks), "RLHF − SFT")
        tables.append(table(f"{name}: percent of the most points", heads, rows, total=True))
    if not tables:
        return Markup()
    words = (
        "As in the paper's Table 3: percent of the most points possible (0–2 a criterion), "
        f"{DECODING[decoding]} decoding. The points are given by the rubric, a program that plays "
        "a judge, and by no person. The overall score weights them with the reconstructed weights."
    )
    return joined([element("div", joined(tables), class_="tables"), notes(words)])


def tasks(run: RunFacts) -> Markup:
    """Scores by what kind of question was asked, sampled decoding where there is any."""
    lines = []
    decoding, splits = compared(run.evaluation)
    models = list(dict.fromkeys(m for split in splits.values() for m in blocks_of(split)))
    for name, split in splits.items():
        rows = [r for r in run.responses if r.split == name and r.decoding == decoding]
        for task in sorted({r.task for r in rows if r.task is not None}):
            own = [r for r in rows if r.task == task]
            lines.append((name, task, *by_task(own, models, split["judge"], run.summary["seed"])))
    if not lines:
        return Markup()
    heads = ("split", "task", "prompts", *map(title, models), "RLHF − SFT", "wins / ties / losses")
    caption = f"Mean score by task, {DECODING[decoding]} decoding ({units(splits)})"
    return table(caption, heads, lines, text=(1,))


def units(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """Whose points a table of these splits holds: one unit, or each with its splits."""
    found: dict[str, list[str]] = {}
    for name, split in splits.items():
        if split["judge"] in JUDGES:
            found.setdefault(JUDGES[split["judge"]], []).append(name)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{unit}: {', '.join(names)}" for unit, names in found.items())


def by_task(
    rows: list[Response], models: list[str], judge: str | None, seed: int | None
) -> tuple[str, ...]:
    """Prompts, each model's mean, the paired difference, and wins, ties and losses of RLHF."""
    digits = _digits(judge)
    means = {m: prompt_means([r for r in rows if r.model == m], judge) for m in models}
    gaps = paired(means.get("rlhf", {}), means.get("sft", {}))
    shown = [
        number(float(np.mean(list(found.values()))) if found else None, digits)
        for found in means.values()
    ]
    count = len({r.index for r in rows})
    if not gaps:
        return (str(count), *shown, "–", "–")
    gap = {"mean": float(np.mean(gaps)), "ci95": bootstrap_ci(gaps, seed or 0)}
    counts = win_tie_loss(means["rlhf"], means["sft"])
    return (str(count), *shown, with_interval(gap, digits, sign=True), " / ".join(map(str, counts)))


def prompt_means(rows: list[Response], judge: str | None) -> dict[Any, float]:
    """Mean score of each prompt's answers, by the judge; unscored answers count in none."""
    scored = ((r.index, r.reward if judge == "reward_model" else r.overall) for r in rows)
    return mean_by_prompt((i, float(s)) for i, s in scored if s is not None)


def paired(first: Mapping[Any, float], second: Mapping[Any, float]) -> list[float]:
    """first − second over the prompts that both have."""
    return [first[key] - second[key] for key in first if key in second]


def benchmarks(found: Mapping[str, Any] | None) -> Markup:
    """The benchmarks' table as `benchmarks.json` has it: a row a model, the paper's below."""
    if not found or not isinstance(found.get("models"), dict):
        return Markup()
    columns = dict(found.get("benchmarks") or {})
    for own in found["models"].values():
        columns |= {name: {} for name in own if name not in columns}
    rows = [
        (model, *(_benchmark(own.get(name)) for name in columns))
        for model, own in found["models"].items()
    ]
    for model, scores in (found.get("paper") or {}).items():
        if scores:
            rows.append((f"{model} (the paper's)", *(number(scores.get(n)) for n in columns)))
    heads = ("model", *(str(c.get("title", name)) for name, c in columns.items()))
    mode = f", mode {found['mode']}" if found.get("mode") else ""
    parts = [table(f"Benchmarks: score in percent ± half the 95% interval{mode}", heads, rows)]
    details = [
        (model, str(columns[name].get("title", name)), *_details(own))
        for model, every in found["models"].items()
        for name, own in every.items()
    ]
    heads = ("model", "benchmark", "questions", "shots", "shots dropped", "unparsed")
    heads = (*heads, "task", "data")
    inside = table("What belongs to each score", heads, details, text=(1, 3, 6, 7))
    summary = element("summary", "Questions, shots, unparsed answers, origin")
    parts.append(element("details", joined([summary, inside])))
    lines = [*(found.get("notes") or []), *(found.get("left_out") or [])]
    return joined([*parts, notes(*map(str, lines))])


def _benchmark(cell: Any) -> str:  # noqa: ANN401
    if not isinstance(cell, dict) or not isinstance(cell.get("score"), int | float):
        return "–"
    if cell.get("low") is None or cell.get("high") is None:
        return f"{cell['score']:.1f}"
    return f"{cell['score']:.1f} ±{(cell['high'] - cell['low']) / 2:.1f}"


def _details(cell: Any) -> tuple[str, ...]:  # noqa: ANN401
    cell = cell if isinstance(cell, dict) else {}
    names = ("n", "shots", "shots_dropped", "unparsed", "origin", "source")
    values = [cell.get(name) for name in names]
    if isinstance(values[3], int | float):
        values[3] = f"{100 * values[3]:.1f}%"
    return tuple("–" if v is None else str(v) for v in values)


def _splits(run: RunFacts) -> list[tuple[str, str, dict[str, Any]]]:
    found = [(name, "sampled", split) for name, split in splits_of(run.evaluation).items()]
    greedy = run.evaluation.get("greedy", {})
    return found + [(name, "greedy", split) for name, split in greedy.items()]


def _chart(rows: list[tuple[str, str, dict[str, Any]]]) -> Markup:
    """A chart for each kind of judge: one row a model and split, with its interval."""
    charts = []
    for judge, unit in JUDGES.items():
        models: list[str] = []
        intervals = []
        for name, decoding, split in rows:
            if split["judge"] != judge:
                continue
            for model, block in blocks_of(split).items():
                value, ci95 = judged(block, judge) if block is not None else (None, None)
                if value is None or ci95 is None:
                    continue
                if model not in models:
                    models.append(model)
                row = Interval(f"{name}, {title(model)}", value, *ci95, models.index(model))
                intervals.append((decoding, row))
        for decoding in ("sampled", "greedy"):
            axes = Axes(f"Held-out prompts, {decoding}: good is RLHF above SFT", unit, "")
            charts.append(interval_chart(axes, [i for d, i in intervals if d == decoding]))
    inside = joined(charts)
    return element("div", inside, class_="charts") if inside else Markup()


def _further(rows: list[tuple[str, str, dict[str, Any]]]) -> Markup:
    lines, bounds = [], {}
    for split_name, decoding, split in rows:
        for name, block in split.get("further", {}).items():
            if "kl_bound" in block:
                bounds[name] = block["best_of"], block["kl_bound"]
            for model, against in block["against"].items():
                gap = with_interval(against["difference"], _digits(split["judge"]), sign=True)
                counts = " / ".join(str(against[key]) for key in ("wins", "ties", "losses"))
                lines.append((split_name, decoding, title(name), title(model), gap, counts))
    if not lines:
        return Markup()
    heads = ("split", "decoding", "model", "against", "difference", "wins / ties / losses")
    words = [
        f"{title(name)} is the SFT sample of {n} that the reward model scores highest: its reward "
        "is high by choice. Its KL to SFT is at most log n − (n − 1)/n = "
        f"{bound:.2f} nats a response, which is a bound and no measurement."
        for name, (n, bound) in bounds.items()
    ]
    shown = {f"{name}, {decoding}": split for name, decoding, split in rows}
    caption = f"Further contenders, prompt by prompt ({units(shown)})"
    return joined([table(caption, heads, lines, text=(1, 2, 3)), notes(*words)])


def _endings(rows: list[tuple[str, str, dict[str, Any]]]) -> Markup:
    lines = [
        (
            name,
            decoding,
            title(model),
            str(block["samples"]),
            f"{block['eos_rate']:.1%}",
            f"{block['mean_tokens']:.1f}",
        )
        for name, decoding, split in rows
        for model, block in blocks_of(split).items()
        if block is not None
    ]
    heads = ("split", "decoding", "model", "responses", "end by themselves", "mean tokens")
    caption = "Length and ends of the answers"
    inside = table(caption, heads, lines, text=(1, 2))
    return element("details", joined([element("summary", caption), inside]))


def _score(split: dict[str, Any], model: str, digits: int) -> str:
    block = blocks_of(split).get(model)
    if block is None:
        return "–"
    value, ci95 = judged(block, split["judge"])
    return with_interval({"mean": value, "ci95": ci95}, digits)


def with_interval(gap: Mapping[str, Any] | None, digits: int, sign: bool = False) -> str:
    """`12.3 [11.0, 13.5]`, or a dash."""
    if gap is None or gap["mean"] is None or gap["ci95"] is None:
        return "–"
    low, high = (number(end, digits, sign) for end in gap["ci95"])
    return f"{number(gap['mean'], digits, sign)} [{low}, {high}]"


def _digits(judge: str | None) -> int:
    """Rubric scores run to 100; reward scores are of the order of 1."""
    return 2 if judge == "reward_model" else 1
