"""Arms against the base arm, paired over seeds.

A seed is one repetition of everything: data, initial weights, sampling, shuffling. So the unit of
an interval is the seed, and each arm is compared with the base arm of the same seed, on the same
held-out prompts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from common.errors import UserError
from common.evaluation.outdated import outdated
from common.evaluation.run_files import read_metrics, read_responses, read_result
from common.evaluation.statistics import bootstrap_ci, mean_by_prompt
from common.training.resume.identity import read_identity

LAST_STEPS = 10
"""Of PPO; figures of a training run are means over these."""
IN_DOMAIN = ("seen", "unseen")
"""The embedded domain's splits; elsewhere every split but `general` counts as in domain."""

RUBRIC, HELD_OUT = "rubric", "eval/overall"


@dataclass(frozen=True)
class Outcome:
    """What one run of an arm came to."""

    seed: int
    scores: dict[str, dict[str, float]]
    """Measure (`domain`, or a split) -> prompt -> mean score over its samples."""
    before: dict[str, float]
    """The same measures of the SFT model, as means."""
    facts: dict[str, float]
    """Of the training: `kl`, `length`, `entropy` (PPO's last steps), `reward_accuracy`."""
    curve: tuple[list[int], list[float]]
    """PPO step -> held-out score, or the rollouts' reward where none was measured."""
    judge: str = RUBRIC
    """What scored: the rubric, or a reward model as a hash of its content."""
    curve_of: str = HELD_OUT
    """The metric that `curve` shows."""

    def mean(self, measure: str) -> float:
        """Over prompts."""
        return float(np.mean(list(self.scores[measure].values())))


@dataclass(frozen=True)
class Difference:
    """An arm minus the base arm."""

    value: float
    half: float
    """Half the 95 % interval."""
    seeds: int

    @property
    def seen(self) -> bool:
        """Whether the interval leaves zero out."""
        return abs(self.value) > self.half


def read_outcome(run: Path, seed: int) -> Outcome | None:
    """The outcome of a finished run; None where its models have not been evaluated.

    Raises:
        UserError: nothing in it was scored, or a file is damaged.
    """
    if read_result(run / "evaluation" / "result.json") is None or "evaluation" in outdated(run)[0]:
        return None
    rows, _ = read_responses(run / "evaluation" / "responses.jsonl")
    rows = [row for row in rows if row.decoding == "sample"]
    judge = "overall" if any(row.overall is not None for row in rows) else "reward"
    splits = list(dict.fromkeys(row.split for row in rows))
    domain = [s for s in splits if s in IN_DOMAIN] or [s for s in splits if s != "general"]
    found: dict[str, dict[str, dict[str, float]]] = {"rlhf": {}, "sft": {}}
    for model, measures in found.items():
        for measure, members in {"domain": domain, **{s: [s] for s in splits}}.items():
            measures[measure] = mean_by_prompt(
                (f"{row.split} {row.index}", getattr(row, judge))
                for row in rows
                if row.model == model and row.split in members and getattr(row, judge) is not None
            )
        if not measures["domain"]:
            raise UserError(
                f"{run / 'evaluation' / 'responses.jsonl'}: no response of '{model}' has a score "
                "to compare by; the evaluation needs a rubric or a reward model"
            )
    metrics = read_metrics(run / "rlhf" / "metrics.jsonl").series
    facts = {
        name: float(np.mean(metrics[key].values[-LAST_STEPS:]))
        for name, key in {
            "kl": "kl/sequence_k1",
            "length": "response/length",
            "entropy": "policy/entropy",
        }.items()
        if key in metrics
    }
    reward = read_result(run / "reward" / "result.json") or {}
    if isinstance(reward.get("accuracy"), int | float):
        facts["reward_accuracy"] = float(reward["accuracy"])
    shown = next((k for k in (HELD_OUT, "reward/score") if k in metrics), "")
    curve = (metrics[shown].steps.tolist(), metrics[shown].values.tolist()) if shown else ([], [])
    before = {m: float(np.mean(list(v.values()))) for m, v in found["sft"].items() if v}
    scores = {m: v for m, v in found["rlhf"].items() if v}
    by = RUBRIC if judge == "overall" else _reward_model(run / "evaluation")
    return Outcome(seed, scores, before, facts, curve, by, shown)


def _reward_model(evaluation: Path) -> str:
    """A hash of the reward model that an evaluation scored by."""
    begun = read_identity(evaluation)
    if begun is None:
        return "a reward model that is not known"
    path = begun.settings.get("reward") or "{run}/models/reward"
    return str(begun.inputs.get(path, path))


def paired(
    arm: Mapping[int, Outcome], base: Mapping[int, Outcome], measure: str
) -> Difference | None:
    """An arm's mean difference to the base arm over the seeds that both have.

    Two runs that reward models scored are compared only where it was the same one: scores of
    different ones have no common scale.

    With two seeds or more the interval is Student's t over the seeds' differences: mean ±
    t(0.975, n − 1)·s/√n. With one seed it can only say how far the prompts would scatter (a
    bootstrap over prompts): how another seed would come out stays unknown.

    Args:
        arm, base: seed -> outcome.
        measure: as in `Outcome.scores`.
    """
    seeds = [s for s in arm if s in base and arm[s].judge == base[s].judge]
    seeds = [s for s in seeds if measure in arm[s].scores and measure in base[s].scores]
    if not seeds:
        return None
    gaps = [
        [
            arm[s].scores[measure][p] - base[s].scores[measure][p]
            for p in _shared(arm, base, s, measure)
        ]
        for s in seeds
    ]
    means = [float(np.mean(gap)) for gap in gaps]
    value = float(np.mean(means))
    if len(seeds) == 1:
        low, high = bootstrap_ci(gaps[0], seeds[0])
        return Difference(value, max(high - value, value - low), 1)
    spread = float(np.std(means, ddof=1)) / math.sqrt(len(seeds))
    return Difference(value, float(student.ppf(0.975, len(seeds) - 1)) * spread, len(seeds))


def _shared(
    arm: Mapping[int, Outcome], base: Mapping[int, Outcome], seed: int, measure: str
) -> list[str]:
    mine, theirs = arm[seed].scores[measure], base[seed].scores[measure]
    return [prompt for prompt in mine if prompt in theirs]


def verdict(difference: Difference | None, digits: int = 1) -> str:
    """In plain words, as seen from the arm; `digits` behind the point."""
    if difference is None:
        return "not measured"
    if difference.seen:
        word = "better" if difference.value > 0 else "worse"
        text = f"{word} by {abs(difference.value):.{digits}f} ± {difference.half:.{digits}f}"
    else:
        gap = f"{difference.value:+.{digits}f} ± {difference.half:.{digits}f}"
        text = f"no difference seen ({gap})"
    return text + (" (one seed: over prompts only)" if difference.seeds == 1 else "")


def against_paper(difference: Difference | None, says: str | None) -> str:
    """How a difference stands to what the paper says of it."""
    if says is None:
        return "says nothing"
    if difference is None:
        return "not measured"
    if not difference.seen:
        return "not seen here"
    same = (difference.value > 0) == (says == "better")
    found = "seen here, too" if same else "the opposite here"
    return found + (", of one seed" if difference.seeds == 1 else "")


def means_of(outcomes: Sequence[Outcome], measure: str) -> tuple[float, float]:
    """Mean over seeds of a measure, and their standard deviation (0 for one seed)."""
    values = [outcome.mean(measure) for outcome in outcomes]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def facts_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Means over seeds of the trainings' figures."""
    keys = list(dict.fromkeys(key for outcome in outcomes for key in outcome.facts))
    return {key: float(np.mean([o.facts[key] for o in outcomes if key in o.facts])) for key in keys}
