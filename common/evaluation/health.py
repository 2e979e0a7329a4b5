"""What the numbers of a run say about its health, in words.

Reward and loss curves look alike in good runs and in collapsed ones. What tells them apart is
checked here, against the limits this project holds its own runs to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common.evaluation.formatting import number
from common.evaluation.run_files import Metrics
from common.evaluation.summary import splits_of

MAX_KL_PER_SEQUENCE = 6.0
"""Nats. Further from the reference than that, the reward model judges text it never saw."""
MIN_EOS_RATE = 0.95
MIN_REWARD_ACCURACY = 0.85
MIN_RIGHT_MINUS_WRONG = 1.5
MAX_LOSS_SHARE = 0.15
MAX_GENERAL_LOSS = 2.0
"""Points of 100."""
CEILING = 97.0
"""Greedy overall score above which two settings can no longer be told apart."""

GENERAL = "general"
"""The split that watches for loss of general ability."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Finding:
    """One checked thing: `ok`, `warning`, or `note` for what has no limit or was not measured."""

    level: Literal["ok", "warning", "note"]
    text: str


def findings(summary: dict[str, Any], metrics: Mapping[str, Metrics]) -> list[Finding]:
    """All findings, in the order in which they are read; warnings only from numbers that exist.

    Args:
        summary: of `build_summary`.
        metrics: stage -> what `read_metrics` gave.
    """
    stages, evaluation = summary["stages"], summary["evaluation"]
    found = [
        Finding("warning", f"{stage}, {event}.")
        for stage, series in metrics.items()
        for event in series.events
    ]
    found += _ppo(stages.get("rlhf"), metrics.get("rlhf"))
    found += _reward_model(stages.get("reward"))
    for name, split in splits_of(evaluation).items():
        if split["difference"] is None:
            continue
        found += _general(split) if name == GENERAL else _in_domain(name, split)
        found += _ending(name, split)
    if evaluation and GENERAL not in evaluation:
        found.append(
            Finding("note", f"No split named `{GENERAL}`: loss of general ability is not measured.")
        )
    found += _ceiling(evaluation.get("greedy", {}))
    return found


def _ppo(result: dict[str, Any] | None, metrics: Metrics | None) -> list[Finding]:
    series = metrics.series if metrics is not None else {}
    found = []
    kl, source = (result or {}).get("kl_per_sequence"), "at the end of PPO"
    if kl is None and "kl/sequence_k1" in series:
        kl, source = _last(series["kl/sequence_k1"].values), "at the last step logged"
    if kl is not None:
        over = kl > MAX_KL_PER_SEQUENCE
        found.append(
            Finding(
                "warning" if over else "ok",
                f"KL to the SFT model is {kl:.2f} nats a sequence {source}; "
                + (
                    f"over {MAX_KL_PER_SEQUENCE:g}, the reward model judges text unlike any that "
                    "it was trained on. Raise the KL coefficient or make fewer steps."
                    if over
                    else f"the limit is {MAX_KL_PER_SEQUENCE:g}."
                ),
            )
        )
    eos_rate = (result or {}).get("eos_rate")
    if eos_rate is not None:
        found.append(_eos("Rollouts at the end of PPO", eos_rate))
    for name, label, unit in (
        ("policy/entropy", "Entropy of the policy", "nats a token"),
        ("response/length", "Response length in the rollouts", "tokens"),
    ):
        if name in series and np.isfinite(series[name].values).sum() > 1:
            values = series[name].values[np.isfinite(series[name].values)]
            found.append(
                Finding("note", f"{label} went from {values[0]:.3g} to {values[-1]:.3g} {unit}.")
            )
    return found


def _reward_model(result: dict[str, Any] | None) -> list[Finding]:
    found = []
    accuracy, probe = (result or {}).get("accuracy"), (result or {}).get("right_minus_wrong")
    if accuracy is not None:
        low = accuracy < MIN_REWARD_ACCURACY
        found.append(
            Finding(
                "warning" if low else "ok",
                f"The reward model orders {accuracy:.1%} of the held-out pairs as the labelers "
                f"did; {'below' if low else 'the limit is'} {MIN_REWARD_ACCURACY:.0%}.",
            )
        )
    baseline = (result or {}).get("length_only_accuracy")
    if accuracy is not None and baseline is not None and accuracy <= baseline:
        found.append(
            Finding(
                "warning",
                f"The reward model's accuracy is {accuracy:.1%}; going by length alone gets "
                f"{baseline:.1%} of the same pairs.",
            )
        )
    if probe is not None:
        low = probe < MIN_RIGHT_MINUS_WRONG
        found.append(
            Finding(
                "warning" if low else "ok",
                f"The probe right minus wrong is {probe:.2f} deviations; "
                + (
                    f"below {MIN_RIGHT_MINUS_WRONG:g}, the reward model hardly tells right answers "
                    "from wrong ones, and PPO can raise its score without being right."
                    if low
                    else f"the limit is {MIN_RIGHT_MINUS_WRONG:g}."
                ),
            )
        )
    return found


def _in_domain(name: str, split: dict[str, Any]) -> list[Finding]:
    found = []
    difference, rubric = split["difference"], split["judge"] == "rubric"
    compared = split["rlhf_wins"] + split["ties"] + split["rlhf_losses"]
    share = split["rlhf_losses"] / compared
    unit = "points" if rubric else "of reward score"
    worse = difference["mean"] < -_ROUNDING
    found.append(
        Finding(
            "warning" if worse else "ok",
            f"{name}: RLHF against SFT: {_change(difference, unit, 1 if rubric else 2)}.",
        )
    )
    found.append(
        Finding(
            "warning" if share > MAX_LOSS_SHARE else "ok",
            f"{name}: RLHF loses on {share:.1%} of the prompts; the limit is {MAX_LOSS_SHARE:.0%}.",
        )
    )
    accuracy = difference.get("criteria", {}).get("accuracy")
    if accuracy is None or accuracy["mean"] is None:
        return found
    falls = accuracy["mean"] < -_ROUNDING
    found.append(
        Finding(
            "warning" if falls else "ok",
            f"{name}: the accuracy criterion {'falls' if falls else 'does not fall'}: "
            f"{_change(accuracy, 'points', 1)}.",
        )
    )
    rewards = [split[model]["reward"] for model in ("sft", "rlhf")]
    if None not in rewards and rewards[1] > rewards[0] and (falls or worse):
        found.append(
            Finding(
                "warning",
                f"{name}: the reward score rose from {rewards[0]:.2f} to {rewards[1]:.2f} while "
                f"the {'accuracy' if falls else 'overall'} score fell: "
                "the mark of a hacked reward model.",
            )
        )
    return found


def _general(split: dict[str, Any]) -> list[Finding]:
    difference = split["difference"]
    if split["judge"] != "rubric":
        return [
            Finding(
                "note", f"{GENERAL}: no rubric scored it; loss of general ability is not measured."
            )
        ]
    lost = difference["mean"] <= -MAX_GENERAL_LOSS
    return [
        Finding(
            "warning" if lost else "ok",
            f"{GENERAL}: RLHF against SFT: {_change(difference, 'points', 1)}; "
            f"the limit is a loss of {MAX_GENERAL_LOSS:g}.",
        )
    ]


def _ending(name: str, split: dict[str, Any]) -> list[Finding]:
    return [_eos(f"{name}: RLHF", split["rlhf"]["eos_rate"])]


def _eos(who: str, rate: float) -> Finding:
    if rate < MIN_EOS_RATE:
        return Finding(
            "warning",
            f"{who}: only {rate:.1%} of the responses end by themselves (limit "
            f"{MIN_EOS_RATE:.0%}); the others are cut off at the length limit.",
        )
    return Finding("ok", f"{who}: {rate:.1%} of the responses end by themselves.")


def _ceiling(greedy: dict[str, Any]) -> list[Finding]:
    return [
        Finding(
            "note",
            f"{name}: greedy RLHF scores {split['rlhf']['overall']:.1f}; above {CEILING:g} two "
            "settings can no longer be told apart. Make the tasks harder to compare settings.",
        )
        for name, split in greedy.items()
        if name != GENERAL
        and split["rlhf"] is not None
        and split["rlhf"]["overall"] is not None
        and split["rlhf"]["overall"] > CEILING
    ]


def _change(difference: dict[str, Any], unit: str, digits: int) -> str:
    """`+3.1 points (95% interval +1.0 to +5.2)`; says so when chance alone could do it."""
    low, high = difference["ci95"]
    chance = ", so it may be chance" if low <= 0.0 <= high and low < high else ""
    return (
        f"{number(difference['mean'], digits, sign=True)} {unit} (95% interval "
        f"{number(low, digits, sign=True)} to {number(high, digits, sign=True)}{chance})"
    )


def _last(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else None
