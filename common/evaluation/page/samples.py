"""Answers to browse: the data for `samples.js`, and the largest wins and regressions as a table."""

import random
from collections.abc import Iterable
from typing import Any

from common.evaluation.contenders import in_order, title
from common.evaluation.formatting import number
from common.evaluation.page.facts import RunFacts
from common.evaluation.page.scores import prompt_means, units
from common.evaluation.run_files import DECODINGS, MODELS, Response
from common.evaluation.statistics import TIE_TOLERANCE
from common.evaluation.summary import compared, splits_of
from common.pages.html import Markup, data_script, element, joined, notes, table

MOST_CHARACTERS = 4_000_000
"""Of prompts and answers in one page; a page of that size still opens at once."""
LONGEST = 6000
"""Characters of one text; the whole is in `evaluation/responses.jsonl`."""
EXTREMES = 8
"""Prompts in the table of wins, and in that of regressions."""
EXCERPT = 160

Key = tuple[str, int]
"""Split and prompt."""
Gap = tuple[str, int, float, float, float]
"""Split, prompt, SFT's mean, RLHF's, RLHF − SFT."""


def gaps_of(run: RunFacts, decoding: str = "sample") -> list[Gap]:
    """RLHF against SFT on each prompt that both answered, by the split's judge."""
    found: list[Gap] = []
    for split, judge in _judges(run).items():
        rows = [r for r in run.responses if r.split == split and r.decoding == decoding]
        sft, rlhf = (prompt_means([r for r in rows if r.model == m], judge) for m in MODELS)
        found += [(split, i, sft[i], rlhf[i], rlhf[i] - sft[i]) for i in sft if i in rlhf]
    return found


def extremes(run: RunFacts) -> Markup:
    """The largest wins and the largest regressions, with their prompts."""
    judges = _judges(run)
    decoding, splits = compared(run.evaluation)
    gaps = gaps_of(run, decoding)
    prompts = {(r.split, r.index): r for r in run.responses}
    parts = []
    for caption, sign in (("Largest regressions", -1.0), ("Largest wins", 1.0)):
        chosen = sorted(gaps, key=lambda g: (-sign * g[4], g[0], g[1]))[:EXTREMES]
        rows = []
        for split, index, sft, rlhf, gap in chosen:
            if sign * gap <= TIE_TOLERANCE:
                continue
            row = prompts[split, index]
            digits = 2 if judges[split] == "reward_model" else 1
            text = row.prompt if len(row.prompt) <= EXCERPT else f"{row.prompt[:EXCERPT]}…"
            numbers = (number(sft, digits), number(rlhf, digits), number(gap, digits, sign=True))
            rows.append((f"{split} {index}", *numbers, element("div", text, class_="text")))
        if rows:
            heads = ("prompt", "SFT", "RLHF", "RLHF − SFT", "text")
            which = "mean scores of the samples" if decoding == "sample" else "greedy answers"
            words = f"{caption}: {which} ({units(splits)})"
            parts.append(table(words, heads, rows, text=(4,)))
    if gaps and not parts:
        return notes("RLHF and SFT score the same on every prompt.")
    return joined(parts)


def browser(run: RunFacts) -> Markup:
    """Where the page's script shows the answers, and what it shows."""
    if not run.responses:
        return Markup()
    content = browser_data(run)
    shown, there = len(content["prompts"]), content["there"]
    words = "Samples are first draws, not best ones; the scores below an answer are its own."
    if shown < there:
        words += (
            f" {shown} of {there} prompts are on this page, drawn by the run's seed; those with "
            "scores by token and the largest wins and regressions are among them."
        )
    if not run.tokens:
        words += " No answer is scored by token: the evaluation's token_prompts is 0, or it is old."
    elif not any("values" in row for row in run.tokens.values()):
        words += (
            " Values and advantages by token need the critic: models/critic of the run, or the "
            "evaluation's setting critic."
        )
    fallback = element(
        "noscript", "Browsing needs JavaScript; the answers are in evaluation/responses.jsonl."
    )
    return joined(
        [notes(words), fallback, element("div", "", id="samples"), data_script("data", content)]
    )


def browser_data(run: RunFacts) -> dict[str, Any]:
    """What `samples.js` reads.

    A prompt has `s`plit, `i`ndex, `t`ask, `p` (its text), and by decoding `g` (RLHF − SFT over all
    samples) and by model an answer: `r`esponse, `o`verall, re`w`ard, `n` tokens, `e`nded, criteria
    `c`, and `k`, scores by token, where there are some.
    """
    judges = _judges(run)
    by_prompt: dict[Key, list[Response]] = {}
    for row in run.responses:
        by_prompt.setdefault((row.split, row.index), []).append(row)
    gaps = {d: {(s, i): gap for s, i, _, _, gap in gaps_of(run, d)} for d in DECODINGS}
    order = _order(run, list(by_prompt), gaps["sample"])
    models = in_order(r.model for r in run.responses)
    chosen: list[tuple[Key, dict[str, Any]]] = []
    left = MOST_CHARACTERS
    for key in order:
        entry = _entry(run, by_prompt[key], gaps, key)
        left -= sum(len(r.prompt) + len(r.response) for r in by_prompt[key] if r.sample == 0)
        if left < 0 and chosen:
            break
        chosen.append((key, entry))
    places = {split: place for place, split in enumerate(judges)}
    chosen.sort(key=lambda item: (places[item[0][0]], item[0][1]))
    return {
        "models": [[m, title(m)] for m in models],
        "splits": list(judges),
        "judges": judges,
        "criteria": list(dict.fromkeys(n for r in run.responses for n in r.criteria or ())),
        "there": len(by_prompt),
        "prompts": [entry for _, entry in chosen],
    }


def _judges(run: RunFacts) -> dict[str, str | None]:
    """Each split's judge, in the order of the report."""
    found = {n: s["judge"] for n, s in splits_of(run.evaluation).items()}
    for name, split in run.evaluation.get("greedy", {}).items():
        found.setdefault(name, split["judge"])
    return found


def _order(run: RunFacts, keys: list[Key], gaps: dict[Key, float]) -> list[Key]:
    """Prompts by how much they must be on the page: extremes, scored tokens, then by seed."""
    ranked = sorted(gaps, key=lambda k: (gaps[k], k))
    first = [*ranked[: 2 * EXTREMES], *ranked[-2 * EXTREMES :]]
    scored = {(place[0], place[1]) for place in run.tokens}
    first += [key for key in keys if key in scored]
    rest = sorted(set(keys).difference(first))
    random.Random(run.summary["seed"] or 0).shuffle(rest)
    return list(dict.fromkeys([*first, *rest]))


def _entry(
    run: RunFacts, rows: Iterable[Response], gaps: dict[str, dict[Key, float]], key: Key
) -> dict[str, Any]:
    rows = list(rows)
    entry: dict[str, Any] = {"s": key[0], "i": key[1], "p": _clipped(rows[0].prompt), "d": {}}
    if rows[0].task is not None:
        entry["t"] = rows[0].task
    for decoding in DECODINGS:
        own = {r.model: r for r in rows if r.decoding == decoding and r.sample == 0}
        if own:
            shown: dict[str, Any] = {m: _answer(run, row) for m, row in own.items()}
            gap = gaps[decoding].get(key)
            entry["d"][decoding] = {"a": shown} | ({} if gap is None else {"g": _round(gap)})
    return entry


def _answer(run: RunFacts, row: Response) -> dict[str, Any]:
    answer: dict[str, Any] = {"r": _clipped(row.response), "n": row.tokens, "e": row.ended}
    if row.overall is not None:
        answer["o"] = _round(row.overall)
    if row.reward is not None:
        answer["w"] = _round(row.reward)
    if row.criteria:
        answer["c"] = row.criteria
    if row.best_of:
        answer["b"] = row.best_of
    scores = run.tokens.get((row.split, row.index, row.model, row.decoding, row.sample))
    if scores is not None:
        names = {"tokens": "x", "sft": "s", "rlhf": "a", "values": "v", "advantages": "g"}
        answer["k"] = {short: scores[name] for name, short in names.items() if name in scores}
    return answer


def _clipped(text: str) -> str:
    rest = len(text) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]} … ({rest} more characters)"


def _round(value: float) -> float:
    return round(value, 3)
