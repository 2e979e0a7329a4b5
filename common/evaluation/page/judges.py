"""The eight criteria by people and by AI judges, as `launch/judge.sh` keeps them."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.evaluation.contenders import title
from common.evaluation.formatting import number
from common.evaluation.page.facts import RunFacts
from common.evaluation.page.scores import with_interval
from common.pages.html import Markup, element, joined, notes, table


def judges(run: RunFacts) -> Markup:
    """A table a judge and split, and how the models compare; the rubric has tables of its own."""
    parts: list[str] = []
    for judge in (run.criteria or {}).get("judges", []):
        if judge["kind"] == "rubric":
            continue
        decoding = "greedy" if judge["decoding"] == "greedy" else "first sampled"
        told = f"{judge['prompts']} prompts, {decoding} answers. "
        parts.append(element("h3", f"By {judge['title']}"))
        parts.append(notes(told + judge.get("told", ""), *judge["notes"]))
        for split, block in judge["splits"].items():
            parts += _split(f"{judge['title']}, {split}", block)
    if not parts:
        return Markup()
    weights = run.criteria["weights"]["name"]  # type: ignore[index]
    words = (
        "In percent of the most points possible, with 95% bootstrap intervals over prompts; the "
        f"overall score has the {weights} weights. Ties count half in a win rate; verdicts that "
        "differ between the two orders are ties."
    )
    return joined([*parts, notes(words)])


def _split(caption: str, block: Mapping[str, Any]) -> list[str]:
    models = block["models"]
    rows = [
        (name, *(with_interval(own[name], 1) for own in models.values()), prompts)
        for name in next(iter(models.values()), {})
        for prompts in [str(max(own[name]["prompts"] for own in models.values()))]
    ]
    heads = ("criterion", *map(title, models), "prompts")
    tables = [table(f"By {caption}: percent of the most points", heads, rows, total=True)]
    if block["pairs"]:
        heads = ("pair", "by", "prompts", "wins / ties / losses", "win rate, percent", "difference")
        lines = [_pair(pair) for pair in block["pairs"]]
        tables.append(table(f"Pairs by {caption}; differences in points", heads, lines, text=(1,)))
    return tables


def _pair(pair: Mapping[str, Any]) -> Sequence[str]:
    low, high = (number(100 * x) for x in pair["ci95"])
    gap = {"mean": pair.get("difference"), "ci95": pair.get("difference_ci95")}
    return (
        f"{title(pair['model'])} against {title(pair['other'])}",
        pair["by"],
        str(pair["prompts"]),
        f"{pair['wins']} / {pair['ties']} / {pair['losses']}",
        f"{number(100 * pair['win_rate'])} [{low}, {high}]",
        with_interval(gap, 1, sign=True),
    )
