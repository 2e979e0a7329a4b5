"""What is looked at in SFT: did it learn to answer, and to stop?"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from common.evaluation.health import (
    MIN_EOS_RATE,
    Check,
    alarms,
    ends,
    over_splits,
    points,
    repeats,
    unmeasured,
)
from common.evaluation.run_files import Metrics

MIN_LOSS_FALL = 0.02
"""Nats a token below the base model's loss, from which on anything was learned."""
MAX_SFT_LOSS = 3.0
"""Nats a token. Measured: 0.25; LOSS_BROKEN."""
MAX_FALL_AT_END = 0.1
"""Of the loss, between the last two evaluations. Measured: 0.04; FALL_BROKEN."""
MIN_SFT_OVERALL = 50.0
"""Of 100. Measured: 71; SCORE_BROKEN."""
MAX_SAMPLES_ALIKE = 0.6
"""Share of the drawn responses of which the prompt had the same already. Measured: 0.23."""


def sft_checks(summary: dict[str, Any], metrics: Mapping[str, Metrics]) -> list[Check]:
    """What is looked at in SFT; arguments as of `diagnose`."""
    return [
        *_sft_loss(metrics.get("sft")),
        _sft_ends(summary, metrics.get("rlhf")),
        _sft_score(summary["evaluation"]),
        repeats(
            "sft", summary["evaluation"], "Train longer (epochs), and clean the data of repeats."
        ),
        _samples_alike(summary["stages"].get("sample")),
        alarms("sft", metrics.get("sft")),
    ]


def _sft_loss(metrics: Metrics | None) -> Iterator[Check]:
    held_out, trained = points(metrics, "eval/loss"), points(metrics, "train/loss")
    name, end = "held-out loss", "loss at the end"
    if held_out.size == 0 or trained.size == 0:
        why = "SFT recorded no held-out loss."
        yield unmeasured("sft", name, why)
        yield unmeasured("sft", end, why)
        return
    last, base = held_out[-1], trained[0]
    learned = bool(last <= base - MIN_LOSS_FALL and last <= MAX_SFT_LOSS)
    yield Check(
        "sft",
        name,
        f"{last:.2f} nats a token; the base model's first batch: {base:.2f}",
        learned,
        "It predicts held-out answers well enough to have learned to write them."
        if learned
        else f"Over {MAX_SFT_LOSS:g} nats a token, or no less than the base model's: it hardly "
        "knows more than which words are frequent.",
        "Train longer (epochs), raise learning_rate, and check that data and template fit.",
        grave=not learned,
    )
    if held_out.size >= 2:
        fall, over = 1.0 - held_out[-1] / held_out[-2], "its last two evaluations"
    elif trained.size >= 8:
        third, fourth = (part.mean() for part in np.array_split(trained, 4)[2:])
        fall, over = 1.0 - fourth / third, "the last quarter of the training"
    else:
        yield unmeasured("sft", end, "Too few steps and evaluations were recorded for a trend.")
        return
    flat = bool(fall <= MAX_FALL_AT_END)
    yield Check(
        "sft",
        end,
        f"{-fall:+.1%} over {over}",
        flat,
        "The loss has levelled off."
        if flat
        else f"The loss still falls by over {MAX_FALL_AT_END:.0%}: the training was cut short.",
        "Train longer: raise epochs, or batch_size down for more steps.",
    )


def _sft_ends(summary: dict[str, Any], ppo: Metrics | None) -> Check:
    rate, where = over_splits(summary["evaluation"], "sft", "eos_rate"), "held-out answers"
    if rate is None:
        first = points(ppo, "response/eos_rate")
        rate, where = (float(first[0]) if first.size else None), "PPO's first rollout"
    if rate is None:
        return unmeasured("sft", "answers that end", "Neither PPO nor the evaluation sampled it.")
    advice = (
        "Check that the data's answers fit max_response_tokens, since a cut one teaches no end, "
        "and train longer (epochs)."
    )
    return ends("sft", rate, where, MIN_EOS_RATE, advice)


def _sft_score(evaluation: dict[str, Any]) -> Check:
    name = "held-out score of SFT"
    value = over_splits(evaluation, "sft", "overall")
    if value is None:
        return unmeasured("sft", name, "No rubric or judge scored SFT's held-out answers.")
    healthy = value >= MIN_SFT_OVERALL
    return Check(
        "sft",
        name,
        f"{value:.1f} points of 100",
        healthy,
        "Its answers are good enough to be ranked and improved."
        if healthy
        else f"Under {MIN_SFT_OVERALL:g}: labelers rank answers that are all bad, and PPO finds "
        "few good ones to raise.",
        "Train longer (epochs), on cleaner data, or from a better base (model).",
    )


def _samples_alike(result: dict[str, Any] | None) -> Check:
    name = "samples alike"
    drawn = (result or {}).get("drawn")
    if not drawn or result.get("repeated") is None:
        return unmeasured("sft", name, "The run drew no samples to rank.")
    share = result["repeated"] / drawn
    healthy = share <= MAX_SAMPLES_ALIKE
    return Check(
        "sft",
        name,
        f"{share:.1%} of the responses drawn were there already",
        healthy,
        "A prompt's samples differ enough to be ranked."
        if healthy
        else "Nearly all samples of a prompt are the same: there is little to rank or to explore.",
        "Train SFT for fewer epochs, or raise temperature in `sample`.",
    )
