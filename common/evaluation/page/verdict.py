"""The top of the report: better or not, whose fault, and what was checked."""

from common.evaluation.diagnosis import NAMES, Diagnosis
from common.evaluation.health import Check
from common.pages.html import Markup, element, joined

_MARKS = {True: ("✓", "healthy"), False: ("✗", "not healthy"), None: ("○", "not measured")}
TITLES = {"sft": "SFT", "reward": "Reward model", "rlhf": "PPO"}


def verdict(diagnosis: Diagnosis) -> Markup:
    """The outcome in a sentence, and the culprit by name."""
    if diagnosis.culprit:
        name = NAMES[diagnosis.culprit]
        kind, who = "ill", f"At fault: {name[0].upper()}{name[1:]}."
    else:
        kind = "well" if diagnosis.outcome == "better" else "open"
        who = "At fault: nobody."
    parts = [
        element("p", diagnosis.verdict, class_="outcome"),
        element("p", joined([element("strong", who), diagnosis.because], " ")),
        *(element("p", note, class_="note") for note in diagnosis.notes),
    ]
    return element("div", joined(parts), class_=f"verdict {kind}")


def checks(diagnosis: Diagnosis) -> Markup:
    """What was looked at in each stage; what needs a look is open and comes first."""
    columns = []
    for stage, title in TITLES.items():
        own = [check for check in diagnosis.checks if check.stage == stage]
        if not own:
            continue
        ill = [c for c in own if c.healthy is False]
        counts = [(len(ill), "to look at"), (sum(c.healthy is True for c in own), "healthy")]
        counts.append((sum(c.healthy is None for c in own), "not measured"))
        told = ", ".join(f"{n} {words}" for n, words in counts if n)
        order = {False: 0, True: 1, None: 2}
        items = [_check(c) for c in sorted(own, key=lambda c: (order[c.healthy], not c.grave))]
        head = element("h3", joined([title, element("span", told, class_="note")], " "))
        culprit = " culprit" if stage == diagnosis.culprit else ""
        columns.append(
            element("div", joined([head, element("ul", joined(items))]), class_=f"stage{culprit}")
        )
    return element("div", joined(columns), class_="checks") if columns else Markup()


def _check(check: Check) -> Markup:
    mark, words = _MARKS[check.healthy]
    kind = {True: "good", False: "bad", None: "open"}[check.healthy]
    sign = element("span", mark, class_=f"mark {kind}", aria_hidden="true")
    name = joined([sign, element("span", f"{words}: ", class_="unseen"), check.name], "")
    summary = element(
        "summary", joined([element("span", name), element("span", check.value, class_="value")])
    )
    parts = [element("p", check.why)]
    if check.try_ and check.healthy is False:
        parts.append(element("p", joined([element("strong", "Try: "), check.try_], "")))
    inside = element("details", joined([summary, *parts]), open=check.healthy is False)
    return element("li", inside)
