"""The judge ranks all prompts, each in both orders, side by side, until it has to stop."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from common.data.labeled import Order, Sample
from common.endpoint.judge import BudgetSpent, Halted, Judge
from common.errors import UserError
from common.reward.callers import text_of
from common.web import NoAnswer
from step2_reward.ai_feedback.orders import Unreadable, read_order
from step2_reward.ai_feedback.rubric import messages_for

FAILURES_IN_A_ROW = 5
"""So many prompts without an answer, one after the other, and the rest would fare alike."""
REFUSALS_IN_A_ROW = 50
"""The same for prompts that the endpoint refuses while it takes others: some may be too long."""
UNANSWERED = "prompts without an answer from the endpoint"
REFUSED = (401, 402, 403, 404)
"""Codes that will be the same for every prompt: the key, the account or the URL is wrong."""


@dataclass(frozen=True)
class Ranked:
    """What the judge made of one prompt: two orders, or the reason why there are none."""

    orders: tuple[Order, ...] = ()
    left_out: str = ""
    unreadable: int = 0
    """Answers that could not be read, those that were asked for again included."""
    lasting: bool = False
    """Whether the endpoint refused this very request, and does not fail in general."""
    told: str = ""
    """What came in place of an order, for the account."""


def rank_all(judge: Judge, samples: Sequence[Sample], rereads: int) -> Iterator[tuple[int, Ranked]]:
    """(number of the sample, what the judge made of it), as they get done.

    When it ends early, nothing further is sent, and what is under way is waited for and kept.

    Raises:
        BudgetSpent, UserError: nothing more can be asked; after all that is done.
    """
    done: list[Ranked] = []

    def work(sample: Sample) -> Ranked:
        try:
            ranked = rank(judge, sample, rereads)
            done.append(ranked)
            if trouble := trouble_of(done):
                raise UserError(trouble)
            return ranked
        except (BudgetSpent, UserError):
            judge.halted.set()
            raise

    with ThreadPoolExecutor(judge.settings.concurrency) as pool:
        try:
            futures = {pool.submit(work, sample): i for i, sample in enumerate(samples)}
            end: Exception | None = None
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                except Halted:
                    pass
                except (BudgetSpent, UserError) as error:
                    end = end or error
            if end:
                raise end
        finally:
            judge.halted.set()
            pool.shutdown(cancel_futures=True)


def rank(judge: Judge, sample: Sample, rereads: int) -> Ranked:
    """Asks for the order of one prompt's responses, as they stand and the other way round.

    Raises:
        BudgetSpent, Halted: it could not be asked.
        UserError: the endpoint refuses everything.
    """
    if len(set(sample.responses)) < 2:
        return Ranked(left_out="prompts without two different responses")
    straight = list(range(len(sample.responses)))
    orders: list[Order] = []
    unreadable = 0
    for shown in (straight, straight[::-1]):
        texts = [sample.responses[i] for i in shown]
        for attempt in range(rereads + 1):
            try:
                answer = judge.answer(messages_for(text_of(sample.messages), texts, attempt))
                order = read_order(answer, len(texts))
            except Unreadable as error:
                unreadable += 1
                told = f"{error} in {answer[:80]!r}"
            except NoAnswer as error:
                return _unanswered(judge, error, unreadable)
            else:
                orders.append(_as_in_file(order, shown))
                break
        else:
            return Ranked((), "prompts whose answers could not be read", unreadable, told=told)
    return Ranked(tuple(orders), unreadable=unreadable)


def trouble_of(done: Sequence[Ranked]) -> str:
    """Why to stop, after these were done one after the other; "" where to go on."""
    picky = done[-1].lasting and any(r.orders for r in done)
    limit = REFUSALS_IN_A_ROW if picky else FAILURES_IN_A_ROW
    last = done[-limit:]
    if len(last) < limit or any(r.left_out != UNANSWERED for r in last):
        return ""
    return f"{limit} prompts in a row got no answer; the last: {last[-1].told}"


def _unanswered(judge: Judge, error: NoAnswer, unreadable: int) -> Ranked:
    told = judge.hide_key(f"{judge.url}: {error} (tries: {error.tries})")
    if error.code in REFUSED:
        key = "holds a key" if judge.has_key else "is not set"
        raise UserError(
            f"{told}. The environment's {judge.settings.api_key_variable} {key}; the URL is the "
            "--endpoint with /chat/completions behind it"
        )
    lasting = error.code is not None and error.code < 500 and error.tries == 1
    return Ranked((), UNANSWERED, unreadable, lasting, told)


def _as_in_file(order: Order, shown: Sequence[int]) -> Order:
    """An order of what was shown, in the numbers that the responses have in the file."""
    return [sorted(shown[i] for i in g) if isinstance(g, list) else shown[g] for g in order]
