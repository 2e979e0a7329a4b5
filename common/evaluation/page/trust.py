"""The reward model's diagnostics: the main figures, and where the rest is."""

from typing import Any

from common.evaluation.formatting import number
from common.evaluation.page.curves import grid
from common.evaluation.page.facts import RunFacts
from common.evaluation.page.overview import ranked_by
from common.pages.html import Markup, element, joined, notes, table
from common.reward.charts import accuracy_chart, reliability_chart


def reward_model(run: RunFacts) -> Markup:
    """Accuracy beside length alone and the labelers, calibration, harmless rewrites."""
    result = run.stages.get("reward")
    if result is None:
        return Markup()
    found = result.get("diagnostics") or {}
    charts = []
    if {"accuracy", "length_only", "ceiling", "by_gap", "by_agreement"} <= found.keys():
        charts.append(accuracy_chart(found))
    if found.get("calibration"):
        charts.append(reliability_chart(found["calibration"]))
    parts: list[str] = [notes(*ranked_by(run)), grid(charts), _numbers(result, found)]
    if (run.folder / "reward" / "diagnostics.html").is_file():
        link = element("a", "The diagnostics page", href="reward/diagnostics.html")
        parts.append(
            element("p", joined([link, "has the scores, the worst mistakes and more."], " "))
        )
    return joined(parts)


def _numbers(result: dict[str, Any], found: dict[str, Any]) -> Markup:
    rows = []
    if result.get("right_minus_wrong") is not None:
        value = number(result["right_minus_wrong"], 2, sign=True)
        rows.append(("right answers minus wrong ones", value, "deviations"))
    length = found.get("length") or {}
    for name, words in (
        ("all", "correlation of score and length"),
        ("given_rank", "the same within prompts, given the rank"),
    ):
        if length.get(name) is not None:
            rows.append((words, number(length[name], 2, sign=True), "of −1 to 1"))
    for name, part in (found.get("rewrites") or {}).items():
        if part.get("shift") is not None:
            value = number(part["shift"], 2, sign=True)
            rows.append((f"harmless rewrite: {name}", value, "deviations"))
            rows.append((f"orders turned by it: {name}", f"{part['flips']:.1%}", "of pairs"))
    if not rows:
        return Markup()
    words = (
        "Right minus wrong: the mean score of right answers minus that of wrong ones to the same "
        "prompts, over the deviation of the scores of SFT samples. It shows a reward model that "
        "rewards form over being right, which pair accuracy does not show."
    )
    caption = "What moves its score"
    return joined([table(caption, ("", "value", "unit"), rows, text=(2,)), notes(words)])
