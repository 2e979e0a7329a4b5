"""The diagnostics page of a reward model: one HTML file that needs nothing else.

All text of prompts, responses and files is escaped, and what would act instead of being seen is
written out. The page's own policy forbids scripts and anything from elsewhere.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.evaluation.formatting import number, visible
from common.files import write_text
from common.reward.charts import accuracy_chart, length_chart, reliability_chart, score_chart
from common.reward.diagnostics import Diagnosis, Mistake
from common.reward.measures import ENOUGH

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --good: #009e73; --bad: #d55e00 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h1 { line-height: 1.2 } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line) }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px }
table { border-collapse: collapse; margin: .6rem 0; display: block; overflow-x: auto }
td, th { border: 1px solid var(--line); padding: .25rem .6rem; text-align: right }
td { white-space: nowrap } td:first-child, th:first-child { text-align: left }
.short li { margin: .3rem 0 } .good::marker { content: "✓ "; color: var(--good) }
.bad::marker { content: "✗ "; color: var(--bad) } .open::marker { content: "○ " }
.text { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft);
  padding: .6rem; border-radius: 4px; max-height: 24rem; overflow-y: auto }
article { border: 1px solid var(--line); border-radius: 6px; padding: .2rem 1rem 1rem;
  margin: 1rem 0 }
h4 { margin: .8rem 0 .3rem } .note { opacity: .75; font-size: .92em }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(
    path: Path, diagnosis: Diagnosis, *, loss: str, chosen_by_accuracy: bool, labelers: str
) -> None:
    """Writes the page.

    Args:
        loss: that the model was trained with.
        chosen_by_accuracy: the held-out pairs have picked the weights, too (early stop).
        labelers: who ranked, in words.
    """
    write_text(
        path, page(diagnosis, loss=loss, chosen_by_accuracy=chosen_by_accuracy, labelers=labelers)
    )


def page(diagnosis: Diagnosis, *, loss: str, chosen_by_accuracy: bool, labelers: str) -> str:
    """The page's HTML; arguments as of `write_page`."""
    found = diagnosis.facts["diagnostics"]
    parts = [
        "<h1>How far to trust this reward model</h1>",
        _notes([f"Who ranked the pairs: {labelers}."]),
        _short(found, chosen_by_accuracy),
        _accuracy(found),
        _calibration(found["calibration"], loss),
        _length(found, diagnosis),
        _rewrites(found["rewrites"]),
        _scores(diagnosis),
        _mistakes(diagnosis.mistakes),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Reward model diagnostics</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def escaped(text: str) -> str:
    """Foreign text as it is to be seen."""
    return html.escape(visible(text))


def _short(found: Mapping[str, Any], chosen_by_accuracy: bool) -> str:
    """What a reader must know, a sentence each, with what it is good or bad for."""
    accuracy, length, best = found["accuracy"], found["length_only"], found["ceiling"]
    items = [
        (
            "good" if accuracy["ci95"][0] > 0.5 else "bad",
            f"It orders {_share(accuracy)} of {accuracy['count']} held-out pairs "
            f"({accuracy['prompts']} prompts) as the labelers did"
            + ("." if accuracy["ci95"][0] > 0.5 else "; that may be chance."),
        ),
        _against_length(length),
    ]
    if best:
        above = best["model"] >= best["value"]
        where = ""
        if best["count"] < accuracy["count"]:
            where = f" ({best['model']:.1%} of the {best['count']} pairs that two compared)"
        items.append(
            (
                "open",
                f"One labeler orders a pair as the others do together in {_share(best)}: the model "
                + ("is at" if above else "is below")
                + f" that ceiling{where}.",
            )
        )
    else:
        items.append(
            (
                "open",
                "How often labelers agree among themselves is not known: that needs the rankings "
                "of two labelers or more (<code>rankings</code>), not pairs alone.",
            )
        )
    for name, shift in found["rewrites"].items():
        if shift["flips"] is not None:
            kind = "good" if shift["flips"] < 0.1 and abs(shift["shift"]) < 0.5 else "bad"
            items.append(
                (
                    kind,
                    f"{html.escape(name.capitalize())}, which changes nothing that is said, moves "
                    f"the score by {number(shift['shift'], 2, sign=True)} deviations and turns "
                    f"{shift['flips']:.0%} of the orders round.",
                )
            )
    if chosen_by_accuracy:
        items.append(
            (
                "open",
                "These same held-out pairs chose the weights among those of several evaluations, "
                "so their accuracy is a little too good: it is the best of several looks.",
            )
        )
    if accuracy["prompts"] < ENOUGH:
        few = f"Only {accuracy['prompts']} prompts are held out: too few to show much."
        items.insert(0, ("bad", few))
    lines = "\n".join(f'<li class="{kind}">{text}</li>' for kind, text in items)
    return f'<ul class="short">\n{lines}\n</ul>'


def _against_length(length: Mapping[str, Any]) -> tuple[str, str]:
    text = (
        f"Preferring the {length['prefers']} response, and nothing else, gets "
        f"{_share(length['accuracy'])}"
    )
    gap = length["model_minus"]
    if gap is None:
        return "open", f"{text}; of so few prompts the difference would show nothing."
    low, high = gap["ci95"]
    shown = f"{100 * gap['value']:+.1f} points against that ({100 * low:+.1f} to {100 * high:+.1f})"
    if low > 0:
        return "good", f"{text}; the model is better: {shown}."
    if high < 0:
        return "bad", f"{text}; <strong>the model is worse</strong>: {shown}."
    return "bad", f"{text}; the model cannot be told from that: {shown}."


def _accuracy(found: Mapping[str, Any]) -> str:
    rows = [("model", found["accuracy"])]
    rows.append((f"prefer the {found['length_only']['prefers']}", found["length_only"]["accuracy"]))
    if found["ceiling"]:
        rows.append(("one labeler against the others", found["ceiling"]))
    rows += [(f"model, rank gap {name}", part) for name, part in found["by_gap"].items()]
    by_agreement = found["by_agreement"] or {}
    rows += [(f"model, agreement W {name}", part) for name, part in by_agreement.items()]
    by_support = found["by_support"] or {}
    rows += [(f"model, {name} prefer it", part) for name, part in by_support.items()]
    cells = [
        (name, f"{p['value']:.1%}", _interval(p), str(p["count"]), str(p["prompts"]))
        for name, p in rows
    ]
    notes = [
        "A pair's rank gap is how far apart the labelers' mean ranks put its two responses: wide "
        "gaps should be the easier ones.",
        "Agreement is Kendall's W of the prompt's labelers, 0 to 1: where they disagree, so may "
        "the model."
        if by_agreement
        else "Agreement of the labelers on each prompt is not known.",
    ]
    if by_support:
        notes.append("“Prefer it”: of the labelers who ranked both responses, those who agree.")
    if found["ceiling"]:
        notes.append(
            "The ceiling leaves each labeler out in turn and counts how often the mean rank of the "
            "others agrees with him (ties half). It errs on both sides: he is compared with one "
            "labeler fewer than the model is, and he had a vote in choosing the pairs."
        )
    notes.append("Intervals: bootstrap over prompts; of few prompts, or where all agree, Wilson's.")
    return (
        "<h2>Accuracy</h2>\n"
        + _picture(accuracy_chart(found), "Accuracy with intervals; the table has the numbers")
        + _table(("", "accuracy", "95% interval", "pairs", "prompts"), cells)
        + _notes(notes)
    )


def _calibration(found: Mapping[str, Any] | None, loss: str) -> str:
    title = "<h2>Calibration</h2>\n"
    if found is None:
        return title + f"<p>Too few held-out prompts: {2 * ENOUGH} are needed.</p>"
    rows = [
        ("as scored, all prompts", found["error"], found["nats"]),
        ("as scored, one half", found["error_before_on_half"], None),
        (
            f"scores × {found['factor']:.3g}, same half",
            found["error_after_on_half"],
            found["nats_after_on_half"],
        ),
    ]
    notes = [
        "Confidence is σ of the difference of the two scores. ECE is the mean distance of accuracy "
        "from confidence over ten bins. The factor is fitted on the other half of the prompts; one "
        "that knows nothing has 0.693 nats. Hollow points are of fewer than five pairs.",
    ]
    if loss == "margin":
        notes.insert(
            0,
            "This model was trained with the hinge, which gives scores no scale: that σ of their "
            "difference is no probability is no fault. The factor shows what their order is worth.",
        )
    cells = [(name, number(error, 3), number(nats, 3)) for name, error, nats in rows]
    return (
        title
        + _picture(reliability_chart(found), "Accuracy at each level of confidence")
        + _table(("", "ECE", "loss, nats a pair"), cells)
        + _notes(notes)
    )


def _length(found: Mapping[str, Any], diagnosis: Diagnosis) -> str:
    values = found["length"]
    if found["accuracy"]["prompts"] < ENOUGH:
        return f"<h2>Score and length</h2>\n<p>Too few held-out prompts: {ENOUGH} are needed.</p>"
    cells = [
        ("all responses", number(values["all"], 2, sign=True)),
        ("within prompts", number(values["within_prompts"], 2, sign=True)),
        ("within prompts, given the rank", number(values["given_rank"], 2, sign=True)),
    ]
    notes = [
        "What is left given the rank is a liking for length that the labelers gave no reason for. "
        f"The rank is known from {values['rank_known_from']}. Lengths are in characters.",
    ]
    return (
        "<h2>Score and length</h2>\n"
        + _picture(length_chart(diagnosis.held_out), "Scatter of score against length")
        + _table(("correlation of score and length", ""), cells)
        + _notes(notes)
    )


def _rewrites(found: Mapping[str, Mapping[str, Any]]) -> str:
    cells = []
    for name, part in found.items():
        if part["shift"] is None:
            cells.append((name, "no response is read otherwise", "–", "–", "–", "0"))
            continue
        interval = "too few prompts"
        if part["ci95"]:
            interval = " to ".join(number(x, 2, sign=True) for x in part["ci95"])
        shift = number(part["shift"], 2, sign=True)
        size, flips = number(part["size"], 2), f"{part['flips']:.1%}"
        cells.append((name, shift, interval, size, flips, str(part["responses"])))
    head = ("", "mean shift", "95% interval", "mean size", "orders turned", "responses")
    unseen = max((part["unseen"] for part in found.values()), default=0)
    notes = [
        "Shifts are in deviations of the scores. An order is turned when rewriting one of a pair's "
        "two responses makes the other one win. What PPO can gain this way, it will find."
    ]
    if unseen:
        notes.append(
            f"Up to {unseen} responses are left out: the model reads them as before, most of them "
            "because they are cut off before the change."
        )
    return "<h2>Harmless rewrites</h2>\n" + _table(head, cells) + _notes(notes)


def _scores(diagnosis: Diagnosis) -> str:
    facts = diagnosis.facts
    spread = facts["scores"]
    cells = [
        (name, *(number(facts[key][q], 2) for q in ("mean", "std", "p25", "median", "p75")))
        for name, key in (
            ("all that are in pairs", "scores"),
            ("preferred", "scores_preferred"),
            ("other", "scores_other"),
        )
    ]
    notes = [
        f"The model's config has the mean {spread['mean']:.3g} and the deviation "
        f"{spread['std']:.3g} of all responses in pairs, by which PPO normalizes. A response that "
        "is in several pairs counts once among all, and once in each pair in the other rows."
    ]
    return (
        "<h2>Scores</h2>\n"
        + _picture(score_chart(diagnosis.held_out), "Histogram of scores")
        + _table(("raw score", "mean", "deviation", "25%", "median", "75%"), cells)
        + _notes(notes)
    )


def _mistakes(mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return "<h2>Worst mistakes</h2>\n<p>No held-out pair is in the wrong order.</p>"
    shown = "\n".join(_mistake(i, m) for i, m in enumerate(mistakes, start=1))
    head = f"<h2>The worst {len(mistakes)} mistakes</h2>\n"
    return head + _notes(["At most one of each prompt. Read them: labelers err, too."]) + shown


def _mistake(place: int, mistake: Mistake) -> str:
    pair = mistake.pair
    agreement = "" if mistake.agreement is None else f", labelers' W {mistake.agreement:.2f}"
    texts = [(f"{m.role}", m.content) for m in pair.messages]
    texts.append((f"Preferred by the labelers, score {mistake.scores[0]:.2f}", pair.chosen))
    texts.append((f"Preferred by the model, score {mistake.scores[1]:.2f}", pair.rejected))
    blocks = "\n".join(
        f'<h4>{escaped(head)}</h4>\n<div class="text" dir="auto" tabindex="0">{escaped(text)}</div>'
        for head, text in texts
    )
    return (
        f"<article>\n<h3>{place}. Wrong by {mistake.wrong_by:.2f} deviations</h3>\n"
        f'<p class="note">rank gap {pair.gap:.2f}{agreement}; {escaped(pair.origin)}</p>\n'
        f"{blocks}\n</article>"
    )


def _share(part: Mapping[str, Any]) -> str:
    return f"{part['value']:.1%} ({_interval(part)})"


def _interval(part: Mapping[str, Any]) -> str:
    low, high = part["ci95"]
    return f"{low:.1%} to {high:.1%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(kind: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{kind}>{escaped(c)}</{kind}>" for c in cells) + "</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f"<table>\n{line('th', head)}\n{body}\n</table>\n"


def _notes(lines: Sequence[str]) -> str:
    return "".join(f'<p class="note">{escaped(line)}</p>\n' for line in lines)


def _picture(png: bytes, words: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<p><img alt="{escaped(words)}" src="data:image/png;base64,{data}"></p>\n'
