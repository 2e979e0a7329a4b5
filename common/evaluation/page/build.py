"""The report of one run, put together."""

from functools import cache
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
from common.evaluation.page.overview import overview
from common.evaluation.page.samples import browser, extremes
from common.evaluation.page.scores import benchmarks, criteria, held_out, tasks
from common.evaluation.page.trust import reward_model
from common.evaluation.page.verdict import checks, verdict
from common.pages.html import contents, element, joined, notes, page, section

HERE = Path(__file__).parent
ABOUT = (
    "Supervised fine-tuning, a reward model on ranked samples of that model, and PPO against it, "
    "after the ICE-GRT paper."
)


def report(run: RunFacts) -> str:
    """The page's HTML; parts for which the run has no files are left out."""
    parts = [
        ("diagnosis", "Diagnosis", [verdict(run.diagnosis), checks(run.diagnosis)]),
        ("scores", "Held-out scores", [held_out(run)]),
        ("criteria", "The eight criteria", [criteria(run), judges(run)]),
        ("tasks", "By task", [tasks(run)]),
        ("benchmarks", "Benchmarks", [benchmarks(run.benchmarks), live_benchmarks(run)]),
        ("curves", "Reward and KL over training", [curves(run, REWARD), frontier(run)]),
        ("rewards", "Rewards before and after", [histograms(run)]),
        ("length", "Length and entropy", [curves(run, LENGTH)]),
        ("updates", "Critic and updates", [curves(run, UPDATES)]),
        ("before", "SFT, reward model, DPO", [curves(run, BEFORE)]),
        ("trust", "How far to trust the reward model", [reward_model(run)]),
        ("extremes", "Largest regressions and wins", [extremes(run)]),
        ("samples-part", "Samples", [browser(run)]),
        ("costs", "Time and memory", [costs(run)]),
        ("run", "What was run", [overview(run)]),
    ]
    sections = {(name, words): section(name, words, *inside) for name, words, inside in parts}
    done = ", ".join(run.stages) or "no stage finished"
    head = [
        element("h1", f"Run {run.name}"),
        notes(ABOUT, f"{done}; {duration(run.summary['seconds_total'])} in all"),
    ]
    main = element("main", joined([*head, *sections.values()]), id="main")
    body = joined([contents([link for link, text in sections.items() if text]), main])
    script = asset("samples.js") if run.responses else ""
    return page(f"Run {run.name}", body, style=asset("report.css"), script=script)


@cache
def asset(name: str) -> str:
    """A file of this folder."""
    return (HERE / name).read_text(encoding="utf-8")
