"""What is looked at in PPO: did it move, not too far, and without falling apart?"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from common.evaluation.health import (
    GENERAL,
    MAX_KL_PER_SEQUENCE,
    MIN_EOS_RATE,
    Check,
    alarms,
    ends,
    in_domain,
    interval_of,
    over_splits,
    points,
    repeats,
    unmeasured,
)
from common.evaluation.run_files import Metrics
from common.evaluation.summary import compared

EXPLODED_KL = 30.0
"""Nats a sequence; the default of the guard's `kl_limit`. Measured: 2.3; 369."""
MIN_KL_PER_SEQUENCE = 0.05
"""Nats. Nearer to the SFT model than that, nothing was learned."""
MIN_SCORE_RISE = 0.2
"""Deviations of the reward model's scores of SFT samples; a fall by as much is grave, while a
smaller one may be the first rollout's noise. Measured: 1.1; −3.1."""
MAX_CLIP_FRACTION = 0.2
"""Of a rollout's tokens, in the worst rollout. Measured: 0.006; 0.33."""
MAX_APPROX_KL = 0.1
"""Nats a token between a rollout's policy and its updates, in the worst rollout. Measured: 0.004;
5.9. Spinning Up ends a step at 0.015 (https://spinningup.openai.com/en/latest/algorithms/ppo.html).
"""
ENTROPY_LEFT = (0.1, 3.0)
"""Times what it was at the start, at least and at most. Measured: 0.30; 0.04."""
ENTROPY_FLOOR = 0.01
"""Nats a token; the default of the guard's `entropy_floor`."""
LENGTH_LEFT = (0.5, 2.0)
"""Times what it was at the start, at least and at most. Measured: 1.2; 3.2."""
EOS_RATE_LOST = 0.05
"""Where SFT's own answers do not all end, PPO may lose so much more."""
MAX_SAMPLER_GAP = 0.1
"""Nats a token in the mean: what `rollout_check_limit` allows in bf16. Measured, in fp32: 1e-7."""
MAX_FALL_FROM_BEST = 5.0
"""Points of 100 that the held-out score may end below its best while the reward goes up. Measured:
0.2 at the end, 3.4 at worst on the way."""
MAX_LOSS_SHARE = 0.15
"""Of the prompts that a judge scores lower than before. Measured: 0.04."""
MAX_GENERAL_LOSS = 2.0
"""Points of 100. Measured: a gain of 8."""


def ppo_checks(summary: dict[str, Any], metrics: Mapping[str, Metrics]) -> list[Check]:
    """What is looked at in PPO; arguments as of `diagnose`."""
    result, logged = summary["stages"].get("rlhf") or {}, metrics.get("rlhf")
    evaluation = summary["evaluation"]
    if not result and (logged is None or not logged.series):
        why = "The run has no PPO" + (
            ": it used DPO." if "dpo" in summary["stages"] else " that has begun."
        )
        return [unmeasured("rlhf", "reward", why)]
    return [
        _score(logged),
        _kl(result, logged),
        *_updates(logged),
        _entropy(logged),
        _lengths(logged),
        _ends(result, logged, evaluation),
        repeats("rlhf", evaluation, "Set repeat_penalty, or raise kl_coefficient."),
        _critic(logged),
        _sampler(logged),
        _over_optimised(logged),
        _losses(evaluation),
        *_accuracy(evaluation),
        _general(evaluation),
        alarms("rlhf", logged),
    ]


def _score(logged: Metrics | None) -> Check:
    name = "reward"
    change = _change(logged, "reward/score")
    if change is None:
        return unmeasured("rlhf", name, "Too few rollouts were recorded.")
    first, last = change
    healthy = last - first >= MIN_SCORE_RISE
    return Check(
        "rlhf",
        name,
        f"{first:+.2f} to {last:+.2f} deviations of the reward model's scores",
        healthy,
        "PPO raises what it is there to raise."
        if healthy
        else f"It {'fell' if last < first else f'rose by less than {MIN_SCORE_RISE:g}'}: PPO did "
        "not raise what it is there to raise.",
        "Where KL exploded, lower actor_learning_rate; where nothing moved, raise it, make more "
        "steps, or lower kl_coefficient.",
        grave=first - last > MIN_SCORE_RISE,
    )


def _kl(result: dict[str, Any], logged: Metrics | None) -> Check:
    name, values = "KL to the SFT model", points(logged, "kl/sequence_k1")
    value = result.get("kl_per_sequence")
    if value is None and values.size:
        value = float(values[-1])
    if value is None:
        return unmeasured("rlhf", name, "It was not recorded.")
    shown = f"{value:.2f} nats a sequence at the end"
    if value < MIN_KL_PER_SEQUENCE:
        return Check(
            "rlhf",
            name,
            shown,
            False,
            f"Under {MIN_KL_PER_SEQUENCE:g}: the policy has hardly moved.",
            "Raise actor_learning_rate, make more steps, or lower kl_coefficient.",
            grave=True,
        )
    healthy = value <= MAX_KL_PER_SEQUENCE
    return Check(
        "rlhf",
        name,
        shown,
        healthy,
        "It moved, and stayed where the reward model knows its way."
        if healthy
        else f"Over {MAX_KL_PER_SEQUENCE:g}: the reward model judges text unlike any that it was "
        "trained on.",
        "Lower actor_learning_rate, raise kl_coefficient (or set kl_target), or make fewer steps.",
        grave=value > EXPLODED_KL,
    )


def _updates(logged: Metrics | None) -> Iterator[Check]:
    for name, key, limit, shown, unit in (
        ("clip fraction", "policy/clip_fraction", MAX_CLIP_FRACTION, "{:.1%}", "of the tokens"),
        ("size of a step", "policy/approx_kl", MAX_APPROX_KL, "{:.2g}", "nats a token"),
    ):
        values = points(logged, key)
        if values.size == 0:
            yield unmeasured("rlhf", name, "It was not recorded.")
            continue
        worst = float(values.max())
        healthy = worst <= limit
        yield Check(
            "rlhf",
            name,
            f"{shown.format(worst)} {unit}, in the worst rollout",
            healthy,
            "The policy changes little enough in a step for PPO's ratios to hold."
            if healthy
            else f"Over {shown.format(limit)}: a step changes the policy so much that its rollout "
            "says little about it any more.",
            "Lower actor_learning_rate or ppo_epochs, or set early_stop_kl.",
        )


def _entropy(logged: Metrics | None) -> Check:
    name = "entropy"
    change = _change(logged, "policy/entropy")
    if change is None:
        return unmeasured("rlhf", name, "Too few rollouts were recorded.")
    first, last = change
    low, high = max(ENTROPY_FLOOR, ENTROPY_LEFT[0] * first), ENTROPY_LEFT[1] * first
    why = "The policy is surer than before and still tries other answers."
    if last < low:
        why = f"Under {low:.2g}: the policy gives one answer only, and explores nothing more."
    elif last > high:
        why = f"Over {high:.2g}: the policy has come apart, and draws words at random."
    return Check(
        "rlhf",
        name,
        f"{first:.3g} to {last:.3g} nats a token",
        low <= last <= high,
        why,
        "Raise kl_coefficient, lower actor_learning_rate, or set entropy_coefficient."
        if last <= high
        else "Lower actor_learning_rate.",
    )


def _lengths(logged: Metrics | None) -> Check:
    name = "length"
    change = _change(logged, "response/length")
    if change is None or change[0] == 0:
        return unmeasured("rlhf", name, "Too few rollouts were recorded.")
    first, last = change
    healthy = LENGTH_LEFT[0] <= last / first <= LENGTH_LEFT[1]
    return Check(
        "rlhf",
        name,
        f"{first:.1f} to {last:.1f} tokens a response",
        healthy,
        "The length is not what PPO changed most."
        if healthy
        else f"Less than {LENGTH_LEFT[0]:g} or more than {LENGTH_LEFT[1]:g} times as long: see "
        "whether length is all that pleases the reward model.",
        "Look at the reward model's length checks, and set length_penalty or no_end_score.",
    )


def _ends(result: dict[str, Any], logged: Metrics | None, evaluation: dict[str, Any]) -> Check:
    rate, where = over_splits(evaluation, "rlhf", "eos_rate"), "held-out answers"
    rates = points(logged, "response/eos_rate")
    if rate is None:
        rate, where = result.get("eos_rate"), "responses of the last rollout"
    if rate is None and rates.size:
        rate = float(rates[-1])
    if rate is None:
        return unmeasured("rlhf", "answers that end", "It was not recorded.")
    before = over_splits(evaluation, "sft", "eos_rate")
    if before is None and rates.size:
        before = float(rates[0])
    limit = MIN_EOS_RATE if before is None else min(MIN_EOS_RATE, max(0, before - EOS_RATE_LOST))
    advice = "Set no_end_score lower, raise max_response_tokens, or lower actor_learning_rate."
    return ends("rlhf", rate, where, limit, advice)


def _critic(logged: Metrics | None) -> Check:
    name, values = "critic", points(logged, "value/explained_variance")
    if values.size < 2:
        return unmeasured("rlhf", name, "Its explained variance was not recorded.")
    value = float(_tail(values, 4).mean())
    healthy = value > 0.0
    return Check(
        "rlhf",
        name,
        f"explained variance {value:.2f} (of 1) over the last quarter",
        healthy,
        "The critic predicts returns better than their mean does."
        if healthy
        else "The critic predicts returns no better than their mean does: advantages are noise.",
        "Raise critic_learning_rate or critic_warmup_steps.",
    )


def _sampler(logged: Metrics | None) -> Check:
    name, values = "sampler against training", points(logged, "rollout/logprob_gap")
    if values.size == 0:
        return unmeasured("rlhf", name, "It was not recorded.")
    value = float(values.max())
    healthy = value <= MAX_SAMPLER_GAP
    return Check(
        "rlhf",
        name,
        f"{value:.1g} nats a token apart at most",
        healthy,
        "What samples and what is trained are the same policy."
        if healthy
        else f"Over {MAX_SAMPLER_GAP:g}: another policy samples than the one that is trained.",
        "Set rollout to generate, and top_k, top_p and repetition_penalty to what changes nothing.",
        grave=not healthy,
    )


def _over_optimised(logged: Metrics | None) -> Check:
    """The reward model's score against a judge's, on held-out prompts during PPO."""
    name = "reward up, judge down"
    judged, score = points(logged, "eval/overall"), points(logged, "eval/score")
    if judged.size < 2 or judged.size != score.size:
        return unmeasured("rlhf", name, "No judge scored held-out prompts during PPO (eval_data).")
    best = int(judged.argmax())
    fall = float(judged[best] - judged[-1])
    healthy = bool(fall <= MAX_FALL_FROM_BEST or score[-1] < score[best])
    return Check(
        "rlhf",
        name,
        f"judge {judged[-1]:.1f} points of 100 at the end, {judged[best]:.1f} at best; reward "
        f"{score[best]:+.2f} to {score[-1]:+.2f} since",
        healthy,
        "The held-out score did not fall while the reward rose."
        if healthy
        else f"The judge's score fell by over {MAX_FALL_FROM_BEST:g} while the reward rose: the "
        "mark of a reward model that is gamed.",
        "Raise kl_coefficient, make fewer steps, or rank samples of the trained actor for a "
        "better reward model.",
    )


def _losses(evaluation: dict[str, Any]) -> Check:
    name = "prompts it got worse on"
    counted = [split for split in in_domain(evaluation).values() if split["difference"] is not None]
    if not counted:
        return unmeasured("rlhf", name, "SFT and RLHF were not compared.")
    losses = sum(split["rlhf_losses"] for split in counted)
    compared = losses + sum(split["rlhf_wins"] + split["ties"] for split in counted)
    healthy = losses / compared <= MAX_LOSS_SHARE
    return Check(
        "rlhf",
        name,
        f"{losses / compared:.1%} of {compared:,} held-out prompts",
        healthy,
        "Few answers are worse than SFT's."
        if healthy
        else f"Over {MAX_LOSS_SHARE:.0%}: many answers are worse than SFT's.",
        "Read the largest regressions: what they share says what the reward model misses.",
    )


def _accuracy(evaluation: dict[str, Any]) -> Iterator[Check]:
    for name, split in in_domain(evaluation).items():
        found = (split["difference"] or {}).get("criteria", {}).get("accuracy")
        if found is None or found["mean"] is None:
            continue
        falls = found["ci95"][1] < 0
        yield Check(
            "rlhf",
            f"accuracy criterion, {name}",
            interval_of(found, "points of 100", 1),
            not falls,
            "The answers became wrong more often."
            if falls
            else "The answers did not become wrong more often.",
            "Look at the reward model's right minus wrong, and raise kl_coefficient.",
        )


def _general(evaluation: dict[str, Any]) -> Check:
    name = "general ability"
    split = compared(evaluation)[1].get(GENERAL)
    if split is None or split["difference"] is None or split["judge"] != "rubric":
        return unmeasured(
            "rlhf", name, f"No split named `{GENERAL}` was scored by a rubric or a judge."
        )
    difference = split["difference"]
    healthy = difference["mean"] > -MAX_GENERAL_LOSS
    return Check(
        "rlhf",
        name,
        interval_of(difference, "points of 100", 1),
        healthy,
        "It did not unlearn what lies outside its domain."
        if healthy
        else f"It lost more than {MAX_GENERAL_LOSS:g} outside of its domain.",
        "Raise kl_coefficient, set ptx_coefficient and ptx_data, or mix general prompts into data.",
    )


def _change(logged: Metrics | None, name: str) -> tuple[float, float] | None:
    """A metric at its first rollout, which is SFT's, and in the mean over its last tenth.

    None with fewer than two values.
    """
    values = points(logged, name)
    return (float(values[0]), float(_tail(values, 10).mean())) if values.size > 1 else None


def _tail(values: np.ndarray, part: int) -> np.ndarray:
    return values[-max(1, values.size // part) :]
