"""The report of one run, put together."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from common.evaluation.formatting import duration
from common.evaluation.page.costs import costs
from common.evaluation.page.curves import (
    BEFORE,
    LENGTH,
    REWARD,
    UPDATES,
    curves,
    frontier,
    histograms,
    live_benchmarks,
)
from common.evaluation.page.facts import RunFacts
from common.evaluation.page.judges import judges
from common.evaluation.page.overview import left_out, overview, ranked_by
from common.evaluation.page.samples import browser, extremes
from common.evaluation.page.scores import benchmarks, criteria, held_out, tasks
from common.evaluation.page.trust import reward_model
from common.evaluation.page.verdict import checks, verdict
from common.pages.html import Markup, contents, element, joined, notes, page, section

HERE = Path(__file__).parent
FILES = {
    "criteria": "evaluation/criteria.json",
    "benchmarks": "benchmarks/benchmarks.json",
    "trust": "reward/result.json",
    "samples-part": "evaluation/tokens.jsonl",
    "run": "a stage's result.json",
    "costs": "a stage's result.json",
}
"""Whose content is shown as it is, by section."""
ABOUT = (
    "Supervised fine-tuning, a reward model on ranked samples of that model, and PPO against it, "
    "after the ICE-GRT paper."
)


def report(run: RunFacts) -> str:
    """The page's HTML; parts for which the run has no files are left out."""
    looked_at = partial(checks, run.diagnosis)
    parts: list[tuple[str, str, list[Callable[[], Markup]]]] = [
        ("diagnosis", "Diagnosis", [partial(verdict, run.diagnosis), looked_at]),
        ("scores", "Held-out scores", [partial(held_out, run)]),
        ("criteria", "The eight criteria", [partial(criteria, run), partial(judges, run)]),
        ("tasks", "By task", [partial(tasks, run)]),
        (
            "benchmarks",
            "Benchmarks",
            [partial(benchmarks, run.benchmarks), partial(live_benchmarks, run)],
        ),
        (
            "curves",
            "Reward and KL over training",
            [partial(curves, run, REWARD), partial(frontier, run)],
        ),
        ("rewards", "Rewards before and after", [partial(histograms, run)]),
        ("length", "Length and entropy", [partial(curves, run, LENGTH)]),
        ("updates", "Critic and updates", [partial(curves, run, UPDATES)]),
        ("before", "SFT, reward model, DPO", [partial(curves, run, BEFORE)]),
        ("trust", "How far to trust the reward model", [partial(reward_model, run)]),
        ("extremes", "Largest regressions and wins", [partial(extremes, run)]),
        ("samples-part", "Samples", [partial(browser, run)]),
        ("costs", "Time and memory", [partial(costs, run)]),
        ("run", "What was run", [partial(overview, run)]),
    ]
    sections = {}
    for name, words, inside in parts:
        shown = [
            whole(part, words, FILES.get(name, "the run's files"), run.notes) for part in inside
        ]
        sections[name, words] = section(name, words, *shown)
    done = ", ".join(run.stages) or "no stage finished"
    head = [
        element("h1", f"Run {run.name}"),
        notes(ABOUT, f"{done}; {duration(run.summary['seconds_total'])} in all"),
        whole(lambda: notes(*ranked_by(run)), "Who ranked", "pairs/result.json", run.notes),
        warnings(left_out(run)),
    ]
    main = element("main", joined([*head, *sections.values()]), id="main")
    body = joined([contents([link for link, text in sections.items() if text]), main])
    script = asset("samples.js") if run.responses else ""
    return page(f"Run {run.name}", body, style=asset("report.css"), script=script)


def whole(part: Callable[[], Markup], title: str, files: str, odd: list[str]) -> Markup:
    """A part of the page, or what kept it from being made: no file is worth the whole report.

    Args:
        files: that the part shows, for the reader.
        odd: takes what is found.
    """
    try:
        return part()
    except Exception as error:
        found = f"“{title}” cannot be shown: something in {files} is not what it must be"
        odd.append(f"{found} ({type(error).__name__}: {error})")
        return notes(f"{found}.")


def warnings(lines: Sequence[str]) -> Markup:
    """What to know before anything on the page is believed; nothing where there is nothing."""
    if not lines:
        return Markup()
    items = [element("li", line) for line in lines]
    return element("div", element("ul", joined(items)), class_="warning", role="note")


@cache
def asset(name: str) -> str:
    """A file of this folder."""
    return (HERE / name).read_text(encoding="utf-8")
