"""How far a score moves when a response is rewritten so that it says the same."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.config.arguments import TextArguments
from common.data.encoding import Comparison, fit_response
from common.data.template import Template
from common.reward.held_out import response_scores, texts_of
from common.reward.measures import mean
from common.reward.training import PairObjective

REWRITES: dict[str, Callable[[str], str]] = {
    "white space at the end": lambda text: f"{text} \n\n",
    "a closing sentence": lambda text: f"{text.rstrip()} I hope this helps.",
}
PROMPTS = 100
"""At most so many are rewritten, evenly spaced: a file's first ones may be of one kind."""


def rewrite_shifts(
    engine: Any,
    objective: PairObjective,
    template: Template,
    text: TextArguments,
    batch_size: int,
    deviation: float,
) -> dict[str, dict[str, Any]]:
    """What each rewrite does to scores, and to the order of pairs, of held-out prompts.

    A collective; the same on every rank.

    Args:
        deviation: of the scores, the unit of the shifts.

    Returns:
        for each rewrite what `shift_facts` gives.
    """
    count = len(objective.comparisons)
    few = [objective.comparisons[i * count // PROMPTS] for i in range(PROMPTS)]
    few = few if count > PROMPTS else objective.comparisons
    before = response_scores(engine, with_rows(objective, few), batch_size)
    found = {}
    for name, rewrite in REWRITES.items():
        changed = [rewritten(c, rewrite, template, text) for c in few]
        after = response_scores(engine, with_rows(objective, changed), batch_size)
        found[name] = shift_facts(few, changed, before, after, deviation)
    return found


def with_rows(objective: PairObjective, comparisons: Sequence[Comparison]) -> PairObjective:
    """The same objective on other comparisons."""
    return PairObjective(
        comparisons, objective.pad_id, objective.settings, share_prompts=objective.share_prompts
    )


def rewritten(
    comparison: Comparison, rewrite: Callable[[str], str], template: Template, text: TextArguments
) -> Comparison:
    """A comparison whose responses are rewritten, within the same limits of length."""
    rows = list(comparison.rows)
    for i, response in texts_of(comparison).items():
        prompt = comparison.rows[i][: comparison.prompt_tokens]
        ids = fit_response(rewrite(response), template, text, Counter(), always_ends=True)
        rows[i] = prompt + ids
    return Comparison(rows, comparison.pairs, comparison.records, comparison.prompt_tokens)


def shift_facts(
    before: Sequence[Comparison],
    after: Sequence[Comparison],
    scores: Sequence[list[float]],
    new_scores: Sequence[list[float]],
    deviation: float,
) -> dict[str, Any]:
    """Shifts of those responses that the model reads otherwise than before.

    One whose end is cut off at the limit does not change for the model, and is only counted.

    Returns:
        `shift`, the mean new minus old score in deviations, with its interval; `size`, the mean of
        its absolute value; `flips`, how often a pair's order changes when one of its two responses
        is rewritten; the number of `responses`, and of those `unseen`.
    """
    moved, prompts, flips, unseen = [], [], [], 0
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        was, now = scores[number], new_scores[number]
        seen = {i for i in texts_of(old) if old.rows[i] != new.rows[i]}
        unseen += len(texts_of(old)) - len(seen)
        moved += [(now[i] - was[i]) / max(deviation, 1e-9) for i in sorted(seen)]
        prompts += [number] * len(seen)
        for i, j in old.pairs:
            order = np.sign(was[i] - was[j])
            # Neither from a tie nor into one: the other one of the two must win.
            flips += [np.sign(now[i] - was[j]) * order < 0] * (i in seen)
            flips += [np.sign(was[i] - now[j]) * order < 0] * (j in seen)
    if not moved:
        return {"shift": None, "size": None, "flips": None, "responses": 0, "unseen": unseen}
    shift = mean(np.array(moved), np.array(prompts))
    return {
        "shift": float(np.mean(moved)),
        "ci95": None if shift is None else [shift.low, shift.high],
        "size": float(np.abs(moved).mean()),
        "flips": float(np.mean(flips)),
        "responses": len(moved),
        "unseen": unseen,
    }
