"""A language model behind an OpenAI-compatible endpoint as a judge of the evaluation's answers."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from common.config.arguments import check_range, option
from common.data.encoding import describe
from common.data.labeled import AI
from common.endpoint.asking import ASK_AGAIN, UNREAD, Asker, Outcome, examples, gather, stopped
from common.endpoint.cache import AnswerCache
from common.endpoint.judge import EndpointArguments, Judge
from common.errors import UserError
from common.evaluation.judges.answers import Question, mark_of
from common.evaluation.judges.judgements import (
    Comparison,
    Judged,
    Judgement,
    Rating,
    folder_of,
    write_judgement,
)
from common.evaluation.judges.rubric import (
    comparison_messages,
    rating_messages,
    read_better,
    read_points,
    verdict_of,
)
from common.training.metrics import progress_bar

ENOUGH = 0.5
"""Share of the prompts that must be judged for the command to have done its work."""


@dataclass
class AiJudgeArguments:
    """How the judge is asked, and what it is called."""

    compare: bool = option(True, "also compare each two models' answers, in both orders")
    rereads: int = option(2, "how often a question is asked again when its answer is unreadable")
    name: str = option("", "the judge's name in tables, behind 'ai:'; by default judge_model")
    progress: bool = option(True, "draw a progress bar")

    def __post_init__(self) -> None:
        check_range(self, 0, "rereads")


def judge_by_ai(
    run: Path,
    questions: Sequence[Question],
    decoding: str,
    settings: AiJudgeArguments,
    at: EndpointArguments,
) -> tuple[Judgement, UserError | None]:
    """Asks about all questions, keeps what came of it, and says why it ended early, if it did.

    Raises:
        UserError: not one question came to anything.
    """
    cache = AnswerCache(Path(at.cache) if at.cache else folder_of(run) / "answers.sqlite")
    judge = Judge(at, cache, threading.Event())
    name = AI + (settings.name or at.judge_model)

    def work(asker: Asker, question: Question) -> Judged:
        return judge_question(asker, question, name, compare=settings.compare)

    try:
        with progress_bar(len(questions), name, shown=settings.progress) as bar:
            done, trouble = gather(judge, questions, settings.rereads, work, bar)
        prompts = tuple(o.result for _, o in sorted(done.items()) if o.result)
        facts = account(judge, list(done.values()), len(questions))
        judgement = Judgement("ai", name, 1, decoding, prompts, facts)
        at_hand = ""
        if prompts:
            at_hand = f" ({write_judgement(run, judgement)})"
        achieved = f"{len(prompts)} of {len(questions)} prompts are judged{at_hand}"
        error = stopped(trouble, achieved, cache.spent()) if trouble else None
    finally:
        cache.close()
    why = trouble_with(list(done.values()))
    if not prompts:
        raise error or UserError(
            f"the judge gave nothing that can be used on {len(questions)} prompts: {why}"
        )
    if not error and len(prompts) < ENOUGH * len(questions):
        error = UserError(f"only {achieved}, fewer than half; left out: {why}")
    return judgement, error


def judge_question(asker: Asker, question: Question, name: str, *, compare: bool) -> Judged:
    """Rates each model's answer, and compares each two of them in both orders.

    Raises:
        LeftOut: an answer of the judge is missing; whatever else `Asker.ask` raises.
    """
    answers = question.answers
    points = {  # what two models answered alike is rated once
        text: asker.ask(lambda n, t=text: rating_messages(question.prompt, t, n), read_points)
        for text in dict.fromkeys(answers.values())
    }
    ratings = tuple(Rating(model, name, points[text]) for model, text in answers.items())
    pairs = list(combinations(answers, 2)) if compare else []
    comparisons = tuple(_compare(asker, question, model, other) for model, other in pairs)
    marks = {model: mark_of(text) for model, text in answers.items()}
    return Judged(question.split, question.index, marks, ratings, comparisons)


def trouble_with(done: Sequence[Outcome[Judged]]) -> str:
    """How many prompts were left out, why, an example, and what to do; "" where none was."""
    left_out = Counter(o.left_out for o in done if o.left_out)
    if not left_out:
        return ""
    what = f"{describe(left_out)}; for example, {examples(done)}"
    return what + f"; {ASK_AGAIN}" * (UNREAD in left_out)


def questions_about(question: Question, *, compare: bool) -> int:
    """How many different questions `judge_question` asks, answers that are the same put once."""
    texts = len(set(question.answers.values()))
    return texts + texts * (texts - 1) * compare


def account(judge: Judge, done: Sequence[Outcome[Judged]], asked: int) -> dict[str, Any]:
    """What came of it, for the reader of the table."""
    spent = judge.cache.spent()
    return {
        "model": judge.settings.judge_model,
        "endpoint": judge.url,
        "asked": asked,
        "left_out": dict(Counter(o.left_out for o in done if o.left_out)),
        "trouble": trouble_with(done),
        "unreadable_answers": sum(o.unreadable for o in done),
        "requests_of_all_ai_judges": spent.requests,
        "tokens_of_all_ai_judges": spent.tokens,
    }


def _compare(asker: Asker, question: Question, model: str, other: str) -> Comparison:
    first, second = question.answers[model], question.answers[other]
    if first == second:
        return Comparison(model, other, "tie", "tie", same=True)
    straight, reverse = (
        asker.ask(lambda n, p=pair: comparison_messages(question.prompt, *p, n), read_better)
        for pair in ((first, second), (second, first))
    )
    return Comparison(model, other, verdict_of(straight, 1), verdict_of(reverse, 2))
