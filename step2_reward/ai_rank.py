"""AI feedback: a language model ranks the samples of each prompt, as one more kind of labeler.

The judge sees each list in both orders, for it prefers places (Zheng et al. 2023, §3.3 and §3.4,
https://arxiv.org/abs/2306.05685), and its two orders are merged. What comes of it is called AI
feedback everywhere: the labeler's name begins with "ai:".
"""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.arguments import RunArguments, check_range, option
from common.data.encoding import describe
from common.data.labeled import AI, Sample, read_samples
from common.endpoint.asking import ASK_AGAIN, UNREAD, examples, gather, stopped
from common.endpoint.cache import AnswerCache
from common.endpoint.judge import EndpointArguments, Judge
from common.errors import UserError
from common.files import write_json_lines
from common.training.metrics import progress_bar
from common.training.run import run_stage
from common.training.stage import Stage
from step2_reward.ai_feedback.orders import (
    disagreement,
    merge_orders,
    share_of_first,
)
from step2_reward.ai_feedback.ranking import Ranked, rank


@dataclass
class AiRankArguments:
    """What the judge ranks, and what becomes of answers that cannot be read."""

    samples: str = option("", "file of samples; by default RUN/sample/samples.jsonl")
    rereads: int = option(2, "how often an order is asked for again when it cannot be read")
    labeler: str = option("", "the judge's name as a labeler, behind 'ai:'; by default judge_model")

    def __post_init__(self) -> None:
        check_range(self, 0, "rereads")


ARGUMENTS = (RunArguments, AiRankArguments, EndpointArguments)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: AiRankArguments, at: EndpointArguments) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    if not at.endpoint or not at.judge_model:
        raise UserError("AI feedback needs --endpoint and --judge_model")
    file = Path(settings.samples) if settings.samples else stage.root / "sample" / "samples.jsonl"
    stage.begin([str(file)])
    samples = read_samples(file)
    labeler = AI + (settings.labeler or at.judge_model)
    target = stage.folder / "rankings.jsonl"

    cache = AnswerCache(Path(at.cache) if at.cache else stage.folder / "answers.sqlite")
    judge = Judge(at, cache, threading.Event())
    with progress_bar(len(samples), "stage 2, AI feedback", shown=run.progress) as bar:
        done, trouble = gather(judge, samples, settings.rereads, rank, bar)

    kept = {i: r for i, r in sorted(done.items()) if r.result}
    rows = [ranking_row(samples[i], r, labeler, judge) for i, r in kept.items()]
    if rows:
        write_json_lines(target, rows)
    facts = account(samples, done, judge)
    spent = cache.spent()
    cache.close()
    if trouble:
        at_hand = f" ({target})" * bool(rows)
        raise stopped(trouble, f"{len(rows)} of {len(samples)} prompts are ranked{at_hand}", spent)
    if not rows:
        raise UserError(
            f"AI feedback ranked none of {len(samples)} prompts: {describe(facts['left_out'])}; "
            f"for example, {examples(list(done.values()))}"
            + f"; {ASK_AGAIN}"
            * (UNREAD in facts["left_out"])
        )
    if UNREAD in facts["left_out"]:
        stage.say(
            f"{facts['left_out'][UNREAD]} {UNREAD}, for example "
            f"{examples(list(done.values()))}; {ASK_AGAIN}, with --fresh true"
        )
    stage.finish(
        {"labelers": [labeler], "kind": "AI feedback", **facts},
        f"AI feedback by {labeler} on {len(rows)} prompts"
        + f", {describe(facts['left_out'])}" * bool(facts["left_out"])
        + f"; its two orders put {facts['disagreement']:.1%} of pairs the other way round, and "
        f"the response shown first won {facts['first_shown_is_best']:.0%} of the lists "
        f"({facts['first_by_chance']:.0%} by chance); {spent.requests} requests and "
        f"{spent.tokens} tokens in all, {judge.from_cache} answers out of the cache",
        outputs=[target],
    )


def ranking_row(sample: Sample, ranked: Ranked, labeler: str, judge: Judge) -> dict[str, Any]:
    """A row of rankings.jsonl: the sample's own, the merged order, and how it came about."""
    count = len(sample.responses)
    note = {
        "model": judge.settings.judge_model,
        "endpoint": judge.url,
        "orders": list(ranked.result),
        "disagreement": round(disagreement(*ranked.result, count), 4),
    }
    return {
        **sample.row,
        "orders": [merge_orders(ranked.result, count)],
        "labelers": [labeler],
        "ai_feedback": [note],
    }


def account(samples: Sequence[Sample], done: dict[int, Ranked], judge: Judge) -> dict[str, Any]:
    """What came of it, for `result.json`."""
    ranked = [(samples[i], r) for i, r in sorted(done.items()) if r.result]
    sizes = [len(sample.responses) for sample, _ in ranked]
    apart = [disagreement(*r.result, n) for (_, r), n in zip(ranked, sizes, strict=True)]
    firsts = [
        share_of_first(order, first)
        for (_, r), n in zip(ranked, sizes, strict=True)
        for order, first in zip(r.result, (0, n - 1), strict=True)
    ]
    spent = judge.cache.spent()
    return {
        "prompts": len(ranked),
        "left_out": dict(Counter(r.left_out for r in done.values() if r.left_out)),
        "unreadable_answers": sum(r.unreadable for r in done.values()),
        "disagreement": _mean(apart),
        "first_shown_is_best": _mean(firsts),
        "first_by_chance": _mean([1 / n for n in sizes]),
        "requests": spent.requests,
        "tokens": spent.tokens,
        "from_cache": judge.from_cache,
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0


if __name__ == "__main__":
    run_stage("ai_rank", ARGUMENTS, main, distributed=False)
