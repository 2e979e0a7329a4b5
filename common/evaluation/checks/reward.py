"""What is looked at in the reward model: does its score mean what the labelers meant?"""

from collections.abc import Mapping
from typing import Any

from common.evaluation.health import Check, alarms, over_splits, percents, unmeasured
from common.evaluation.run_files import Metrics

Block = dict[str, Any]

CHANCE = 0.5
MIN_WAY_TO_CEILING = 0.7
"""From chance to the labelers' agreement with each other. Measured: 0.79; WAY_BROKEN. Of models
of 520 to 2,071 pairs: 0.37 to 0.66."""
MAX_CALIBRATION_ERROR = 0.1
"""After one factor is fitted. Measured: 0.02, which is also what networks for images come to
(Guo et al. 2017, Table 1, https://arxiv.org/abs/1706.04599). Of models of 520 to 2,071 pairs:
0.03 to 0.11."""
MIN_RIGHT_MINUS_WRONG = 1.5
"""Deviations of the scores of SFT samples. Measured: 1.86; PROBE_BROKEN."""
NO_RIGHT_MINUS_WRONG = 0.5
"""Below this, right and wrong answers are the same to the reward model."""
MAX_LENGTH_CORRELATION = 0.4
"""Of the score with length. Measured, given the rank: 0.09. Of models of 520 to 2,071 pairs:
0.43 to 0.76."""
MIN_AGREES = 0.5
"""Share of the pairs of PPO's own answers that reward model and judge order alike: chance.
Measured: 0.64 (of SFT's answers 0.84); AGREES_BROKEN."""


def reward_checks(summary: dict[str, Any], metrics: Mapping[str, Metrics]) -> list[Check]:
    """What is looked at in the reward model; arguments as of `sft_checks`."""
    result = summary["stages"].get("reward") or {}
    if not result:
        return [unmeasured("reward", "held-out pairs", "The run has no finished reward model.")]
    found = result.get("diagnostics") or {}
    return [
        _pair_accuracy(result, found),
        _against_length(result, found),
        _against_ceiling(result, found),
        _calibration(found.get("calibration")),
        _probe(result.get("right_minus_wrong")),
        _length(result, found.get("length") or {}),
        _agrees(summary["evaluation"]),
        alarms("reward", metrics.get("reward")),
    ]


def _pair_accuracy(result: Block, found: Block) -> Check:
    name = "held-out pairs"
    value = result.get("accuracy")
    if value is None:
        return unmeasured("reward", name, "The reward model reported no held-out accuracy.")
    interval = (found.get("accuracy") or {}).get("ci95")
    known = (interval[0] if interval else value) > CHANCE
    return Check(
        "reward",
        name,
        f"{value:.1%} in the labelers' order" + percents(interval),
        known,
        "It orders pairs that it never saw better than chance (50%)."
        if known
        else "It orders pairs that it never saw no better than chance (50%): its score means "
        "nothing, and raising it means nothing.",
        "Check which response of a pair is the better one (columns, rankings), raise epochs or "
        "learning_rate, and get more pairs.",
        grave=not known,
    )


def _against_length(result: Block, found: Block) -> Check:
    name = "against length alone"
    value, baseline = result.get("accuracy"), result.get("length_only_accuracy")
    if value is None or baseline is None:
        return unmeasured("reward", name, "There is no accuracy of length alone to compare with.")
    gap = (found.get("length_only") or {}).get("model_minus") or {}
    low = gap["ci95"][0] if gap else value - baseline
    return Check(
        "reward",
        name,
        f"{value - baseline:+.1%} of the pairs" + percents(gap.get("ci95"), sign=True),
        low > 0,
        f"It knows more than length, which alone orders {baseline:.1%} rightly."
        if low > 0
        else f"Going by length alone orders {baseline:.1%} rightly: it is no better than that.",
        "Get pairs of equal lengths, more of them, or a larger reward model.",
    )


def _against_ceiling(result: Block, found: Block) -> Check:
    name = "against the labelers' agreement"
    value, best = result.get("accuracy"), (found.get("ceiling") or {}).get("value")
    if value is None or best is None:
        return unmeasured(
            "reward", name, "How far labelers agree is not known: no prompt has two of them."
        )
    if best <= CHANCE:
        return Check(
            "reward",
            name,
            f"labelers agree with each other on {best:.1%}",
            False,
            "The labelers agree no more than chance would have it: there is nothing to learn.",
            "Look at the labels and the instructions that labelers were given.",
            grave=True,
        )
    way = (value - CHANCE) / (best - CHANCE)
    healthy = way >= MIN_WAY_TO_CEILING
    return Check(
        "reward",
        name,
        f"{way:.0%} of the way from chance to their {best:.1%}",
        healthy,
        "It has learned most of what labelers agree on."
        if healthy
        else f"Under {MIN_WAY_TO_CEILING:.0%}: labelers agree on much that it did not learn.",
        "Raise epochs, get more pairs (responses in `sample`, prompts), or a larger reward model.",
    )


def _calibration(found: Block | None) -> Check:
    name = "calibration"
    if not found:
        return unmeasured("reward", name, "Too few held-out prompts to measure it.")
    error = found["error_after_on_half"]
    healthy = error <= MAX_CALIBRATION_ERROR
    return Check(
        "reward",
        name,
        f"error {error:.3f} after one factor is fitted, {found['error']:.3f} as it is (of 1)",
        healthy,
        "A larger difference of scores means a surer preference."
        if healthy
        else "How far two scores differ does not say how sure the preference is.",
        "Set loss to logistic, or score_penalty against scores that spread.",
    )


def _probe(value: float | None) -> Check:
    name = "right minus wrong"
    if value is None:
        return unmeasured("reward", name, "It needs prompts whose truth is known (probe).")
    healthy = value >= MIN_RIGHT_MINUS_WRONG
    return Check(
        "reward",
        name,
        f"{value:.2f} deviations of the scores of SFT samples",
        healthy,
        "It tells right answers from wrong ones in the same form."
        if healthy
        else f"Under {MIN_RIGHT_MINUS_WRONG:g}: it hardly tells right answers from wrong ones, "
        "and PPO can raise its score without being right.",
        "Get pairs that differ in being right, more of them, or a larger reward model.",
        grave=value < NO_RIGHT_MINUS_WRONG,
    )


def _length(result: Block, found: Block) -> Check:
    name = "length in the score"
    value, what = found.get("given_rank"), "given the labelers' order"
    if value is None:
        value, what = result.get("length_score_correlation"), "over all responses"
    if value is None:
        return unmeasured("reward", name, "Its correlation with length was not recorded.")
    healthy = abs(value) <= MAX_LENGTH_CORRELATION
    return Check(
        "reward",
        name,
        f"correlation {value:+.2f} (of ±1) with length, {what}",
        healthy,
        "Its score does not hang on length."
        if healthy
        else "Its score hangs on length beyond what the labelers asked for; PPO will follow it.",
        "Get pairs of equal lengths, or set length_penalty in `rlhf`.",
    )


def _agrees(evaluation: Block) -> Check:
    name = "agreement with the judge"
    before, after = (over_splits(evaluation, model, "reward_agrees") for model in ("sft", "rlhf"))
    if after is None or before is None:
        return unmeasured(
            "reward", name, "It needs several answers a prompt that a rubric and it scored."
        )
    healthy = after >= MIN_AGREES
    return Check(
        "reward",
        name,
        f"same order on {after:.1%} of the pairs of PPO's answers, {before:.1%} of SFT's",
        healthy,
        "On the answers that PPO writes it still prefers what the judge prefers."
        if healthy
        else f"Under {MIN_AGREES:.0%}, which is chance: of PPO's answers it prefers others than "
        "the judge does.",
        "Rank samples of the trained actor and train the reward model on them too.",
    )
