"""Is a run better than where it began, and if not, whose fault is it: SFT, reward model or PPO?

Each stage stands on the one before: a reward model cannot rank what SFT does not write, and PPO
raises whatever the reward model rewards. So the culprit is the earliest stage whose ill health
explains the outcome, and a later stage that is ill too may be ill for that reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.evaluation.checks.ppo import MIN_SCORE_RISE, ppo_checks
from common.evaluation.checks.reward import reward_checks
from common.evaluation.checks.sft import sft_checks
from common.evaluation.contenders import title
from common.evaluation.health import (
    GENERAL,
    MAX_KL_PER_SEQUENCE,
    Check,
    Part,
    in_domain,
    interval_of,
    over_splits,
    unmeasured,
)
from common.evaluation.run_files import Metrics
from common.evaluation.summary import compared, splits_of

Outcome = Literal["better", "worse", "same", "unknown"]

NAMES: dict[Part, str] = {"sft": "SFT", "reward": "the reward model", "rlhf": "PPO"}
ENOUGH_ILL = 2
"""Ill checks, none of them grave, that together explain why nothing came of what followed."""
CEILING = 97.0
"""Overall score above which two settings, or SFT and RLHF, can no longer be told apart."""


@dataclass(frozen=True)
class Diagnosis:
    """What a run came to, and why."""

    verdict: str
    """One sentence: better or not, by how much, with its interval."""
    culprit: Literal["", "sft", "reward", "rlhf"]
    """The earliest stage whose ill health explains the outcome; empty: nobody is to blame."""
    because: str
    """A few sentences: what speaks for that."""
    checks: list[Check]
    """In the order of the stages: SFT, reward model, PPO."""
    notes: tuple[str, ...] = ()
    """What to know before this run is compared with another."""
    outcome: Outcome = "unknown"


def diagnose(summary: dict[str, Any], metrics: Mapping[str, Metrics]) -> Diagnosis:
    """Judges a run by what its files say; reads none itself.

    Args:
        summary: of `build_summary`.
        metrics: stage -> what `read_metrics` gave, with the events of its guard.
    """
    checks = [
        *_checks("sft", sft_checks, summary, metrics),
        *_checks("reward", reward_checks, summary, metrics),
        *_checks("rlhf", ppo_checks, summary, metrics),
    ]
    evaluation = summary["evaluation"]
    outcome, verdict = _verdict(evaluation)
    if outdated := summary.get("outdated", {}).get("evaluation"):
        verdict = (
            f"Not known: the evaluation is of an earlier state of the run ({outdated}). "
            "Run the evaluation again."
        )
    culprit, because = _culprit(checks, outcome, summary)
    return Diagnosis(verdict, culprit, because, checks, _notes(evaluation), outcome)


def _checks(
    stage: Part,
    look: Callable[[dict[str, Any], Mapping[str, Metrics]], list[Check]],
    summary: dict[str, Any],
    metrics: Mapping[str, Metrics],
) -> list[Check]:
    """What is looked at in a stage; of one that is out of date, or whose files are odd, nothing."""
    if why := summary.get("outdated", {}).get(stage):
        return [unmeasured(stage, "up to date", f"It is not: {why}. Run {stage} again.")]
    try:
        return look(summary, metrics)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        odd = f"{type(error).__name__}: {error}"
        return [
            unmeasured(
                stage,
                "files that can be read",
                f"{stage}/result.json holds something that is not what it must be ({odd}). "
                f"Run {stage} again.",
            )
        ]


def _verdict(evaluation: dict[str, Any]) -> tuple[Outcome, str]:
    """The outcome over the splits in the domain, and the sentence that says it."""
    splits = {n: s for n, s in in_domain(evaluation).items() if s["difference"] is not None}
    if not splits:
        return "unknown", "Not known yet: SFT and RLHF were not compared on held-out prompts."
    independent = {n: s for n, s in splits.items() if s["judge"] != "reward_model"}
    splits, by_reward = independent or splits, not independent
    unit, digits = ("of reward score", 2) if by_reward else ("points of 100", 1)
    found = "; ".join(
        f"{interval_of(split['difference'], unit, digits)} on {name}"
        for name, split in splits.items()
    )
    ups = [name for name, split in splits.items() if split["difference"]["ci95"][0] > 0]
    downs = [name for name, split in splits.items() if split["difference"]["ci95"][1] < 0]
    if ups and downs:
        where = f"Better on {', '.join(ups)} and worse on {', '.join(downs)}"
        return "worse", f"{where}. RLHF against SFT {found}."
    if by_reward:
        judge = "only the reward model judged it, which PPO was trained to please"
        outcome: Outcome = "worse" if downs else "unknown" if ups else "same"
        return outcome, f"Not known to be better, for {judge}: RLHF against SFT {found}."
    if ups:
        cost = _cost(evaluation)
        how = "Better, at the cost of general ability" if cost else "Better"
        return "better", f"{how}: RLHF against SFT {found}{cost}."
    if downs:
        return "worse", f"Worse: RLHF against SFT {found}."
    return "same", f"No difference seen: RLHF against SFT {found}."


def _cost(evaluation: dict[str, Any]) -> str:
    """What general ability paid for it, where it surely did."""
    split = compared(evaluation)[1].get(GENERAL) or {}
    difference = split.get("difference")
    if difference is None or split["judge"] != "rubric" or difference["ci95"][1] >= 0:
        return ""
    return f"; {interval_of(difference, 'points of 100', 1)} on {GENERAL}"


def _culprit(
    checks: Sequence[Check], outcome: Outcome, summary: dict[str, Any]
) -> tuple[Literal["", "sft", "reward", "rlhf"], str]:
    """Who is to blame, and why.

    SFT and the reward model are named for a grave check whatever the outcome: what is built on
    them is worth little even where it is better than its beginning. PPO is named only where it did
    not make things better.
    """
    for stage in NAMES:
        grave = [c for c in checks if c.stage == stage and c.healthy is False and c.grave]
        if grave and (stage != "rlhf" or outcome != "better"):
            little = " That RLHF is better than SFT says little then." * (outcome == "better")
            return stage, _told(stage, grave) + little
    ill = [check for check in checks if check.healthy is False]
    if outcome in ("better", "unknown"):
        return "", _nobody(checks, ill)
    before = over_splits(summary["evaluation"], "sft", "overall")
    if outcome == "same" and before is not None and before > CEILING:
        return "", f"SFT scores {before:.1f} points of 100 already: there was nothing left to gain."
    for stage in ("sft", "reward"):
        found = [check for check in ill if check.stage == stage]
        if len(found) >= ENOUGH_ILL:
            return stage, _told(stage, found)
    if not any(check.stage == "rlhf" and check.healthy is not None for check in checks):
        return "", f"The run has no PPO to be judged. {_nobody(checks, ill)}"
    return _by_symptoms(ill, summary)


def _by_symptoms(
    ill: Sequence[Check], summary: dict[str, Any]
) -> tuple[Literal["reward", "rlhf"], str]:
    """No stage is ill enough by itself: did PPO fail to raise the reward, or was that no use?"""
    raw = [over_splits(summary["evaluation"], model, "reward") for model in ("sft", "rlhf")]
    before, after, unit = _on_its_scale(*raw, summary["stages"].get("reward") or {})
    names = {check.name for check in ill if check.stage == "rlhf"}
    if before is None or after is None:
        raised, told = "reward" not in names, ""
    else:
        raised = after - before >= MIN_SCORE_RISE
        told = f" ({before:+.2f} to {after:+.2f} {unit} on held-out prompts)"
    if not raised:
        return "rlhf", f"PPO did not raise the reward{told}, and so could improve nothing."
    if "KL to the SFT model" in names:
        return "rlhf", (
            f"PPO raised the reward{told} and not the quality, at over "
            f"{MAX_KL_PER_SEQUENCE:g} nats from SFT, where the reward model never was trained."
        )
    return "reward", (
        f"PPO raised the reward{told} and stayed near SFT, but the answers are no better: the "
        "reward model rewards something else than the judge does."
    )


def _on_its_scale(
    before: float | None, after: float | None, reward: Mapping[str, Any]
) -> tuple[float | None, float | None, str]:
    """Two raw scores in deviations of the reference responses', and the unit; raw if not known."""
    scale = reward.get("scores") or {}
    mean, std = scale.get("mean"), scale.get("std")
    if before is None or after is None or mean is None or not std:
        return before, after, "of raw score"
    return (before - mean) / std, (after - mean) / std, "deviations"


def _told(stage: Part, found: Sequence[Check]) -> str:
    """What speaks against a stage: the first two of what was found, and what the first means."""
    values = " and ".join(f"{check.name} ({check.value})" for check in found[:2])
    name = NAMES[stage]
    return f"{name[0].upper()}{name[1:]} is ill by its {values}. {found[0].why}"


def _nobody(checks: Sequence[Check], ill: Sequence[Check]) -> str:
    measured = sum(check.healthy is not None for check in checks)
    if not measured:
        return "Nothing was measured yet."
    if not ill:
        return f"All {measured} things that were checked look healthy."
    names = ", ".join(f"{check.name} ({NAMES[check.stage]})" for check in ill)
    need = "needs" if len(ill) == 1 else "need"
    return f"Of {measured} things that were checked, {len(ill)} {need} a look: {names}."


def _notes(evaluation: dict[str, Any]) -> tuple[str, ...]:
    return (
        *_greedy_falls(evaluation),
        *_against_best_of_n(evaluation),
        *_at_the_ceiling(evaluation),
    )


def _against_best_of_n(evaluation: dict[str, Any]) -> tuple[str, ...]:
    """How PPO stands to what the reward model makes of SFT's samples without it."""
    told: dict[str, list[str]] = {}
    for split, found in splits_of(evaluation).items():
        for name, block in found.get("further", {}).items():
            gap = block["against"].get("rlhf", {}).get("difference") if "best_of" in block else None
            if gap and found["judge"] == "rubric":
                low, high = (-x for x in reversed(gap["ci95"]))
                ahead = "ahead" if low > 0 else "behind" if high < 0 else "no difference seen"
                shown = f"{split} {-gap['mean']:+.1f} [{low:+.1f}, {high:+.1f}], {ahead}"
                told.setdefault(title(name), []).append(shown)
    return tuple(
        f"RLHF against {name} (of SFT's samples the one that the reward model likes best, without "
        f"PPO), in points of 100: {'; '.join(splits)}."
        for name, splits in told.items()
    )


def _greedy_falls(evaluation: dict[str, Any]) -> tuple[str, ...]:
    """Where greedy answers surely got worse, which the verdict, by sampled ones, does not show."""
    found = []
    for name, split in evaluation.get("greedy", {}).items() if splits_of(evaluation) else ():
        difference = split.get("difference")
        if split["judge"] == "rubric" and difference and difference["ci95"][1] < 0:
            told = interval_of(difference, "points of 100", 1)
            found.append(f"{name}: greedy answers got worse, RLHF against SFT {told}.")
    return tuple(found)


def _at_the_ceiling(evaluation: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{name}: greedy RLHF scores {split['rlhf']['overall']:.1f} points of 100; above "
        f"{CEILING:g} two settings can no longer be told apart. Make the tasks harder to compare "
        "settings."
        for name, split in evaluation.get("greedy", {}).items()
        if name != GENERAL
        and split["rlhf"] is not None
        and split["rlhf"]["overall"] is not None
        and split["rlhf"]["overall"] > CEILING
    )
