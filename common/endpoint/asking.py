"""A judge is asked about many things side by side, until all is done or it has to stop."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from common.endpoint.cache import Spent
from common.endpoint.judge import BudgetSpent, Halted, Judge
from common.endpoint.reading import Unreadable
from common.errors import UserError
from common.web import NoAnswer

Item = TypeVar("Item")
Result = TypeVar("Result")

FAILURES_IN_A_ROW = 5
"""So many prompts without an answer, one after the other, and the rest would fare alike."""
REFUSALS_IN_A_ROW = 50
"""The same for prompts that the endpoint refuses while it takes others: some may be too long."""
UNANSWERED = "prompts without an answer from the endpoint"
UNREAD = "prompts whose answers could not be read"
ASK_AGAIN = (
    "check what the endpoint serves, raise --answer_tokens or name another --judge_model; such "
    "answers are not taken from the cache: the same command asks again"
)
"""What to do about answers that could not be read."""
REFUSED = (401, 402, 403, 404)
"""Codes that will be the same for every prompt: the key, the account or the URL is wrong."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What the judge made of one prompt, or the reason why there is nothing."""

    result: Result | None = None
    left_out: str = ""
    unreadable: int = 0
    """Answers that could not be read, those that were asked for again included."""
    lasting: bool = False
    """Whether the endpoint refused this very request, and does not fail in general."""
    told: str = ""
    """What came in place of an answer, for the account."""


class LeftOut(Exception):
    """A prompt comes to nothing; the text says why, in words that follow a number."""

    def __init__(self, why: str, *, lasting: bool = False, told: str = "") -> None:
        super().__init__(why)
        self.lasting = lasting
        self.told = told


class Asker:
    """Asks about one prompt, and counts the answers that could not be read."""

    def __init__(self, judge: Judge, rereads: int) -> None:
        """Args:
        rereads: how often a question is asked again whose answer cannot be read.
        """
        self.judge = judge
        self.rereads = rereads
        self.unreadable = 0

    def ask(
        self, messages: Callable[[int], list[dict[str, str]]], read: Callable[[str], Result]
    ) -> Result:
        """What is read in the judge's answer.

        What cannot be read is no result: of what an earlier command left behind, only answers
        that can be read count, and the rest is asked again.

        Args:
            messages: the question's, given how often it was asked before.
            read: raises `Unreadable`.

        Raises:
            LeftOut: the endpoint answered nothing, or nothing that can be read.
            BudgetSpent, Halted: it could not be asked.
            UserError: the endpoint refuses everything.
        """

        def readable(answer: str) -> bool:
            with contextlib.suppress(Unreadable):
                read(answer)
                return True
            return False

        for attempt in range(self.rereads + 1):
            known = self.judge.known(messages(attempt))
            if known is None:
                break
            if readable(known):
                self.unreadable += attempt
                self.judge.count_from_cache()
                return read(known)
        told = ""
        for attempt in range(self.rereads + 1):
            try:
                answer = self.judge.answer(messages(attempt), readable)
            except NoAnswer as error:
                raise self._unanswered(error) from None
            try:
                return read(answer)
            except Unreadable as error:
                self.unreadable += 1
                told = f"{error} in {answer[:80]!r}"
        raise LeftOut(UNREAD, told=told)

    def _unanswered(self, error: NoAnswer) -> LeftOut:
        judge = self.judge
        told = judge.hide_key(f"{judge.url}: {error} (tries: {error.tries})")
        if error.code in REFUSED:
            key = "holds a key" if judge.has_key else "is not set"
            raise UserError(
                f"{told}. The environment's {judge.settings.api_key_variable} {key}; the URL is "
                "the --endpoint with /chat/completions behind it"
            )
        lasting = error.code is not None and error.code < 500 and error.tries == 1
        return LeftOut(UNANSWERED, lasting=lasting, told=told)


def ask_about_all(
    judge: Judge, items: Sequence[Item], rereads: int, work: Callable[[Asker, Item], Result]
) -> Iterator[tuple[int, Outcome[Result]]]:
    """(number of the item, what the judge made of it), as they get done.

    When it ends early, nothing further is sent, and what is under way is waited for and kept.

    Args:
        work: asks all that there is to ask about one item; may raise `LeftOut`.

    Raises:
        BudgetSpent, UserError: nothing more can be asked; after all that is done.
    """
    done: list[Outcome[Result]] = []

    def outcome_of(item: Item) -> Outcome[Result]:
        asker = Asker(judge, rereads)
        try:
            return Outcome(work(asker, item), unreadable=asker.unreadable)
        except LeftOut as error:
            return Outcome(None, str(error), asker.unreadable, error.lasting, error.told)

    def guarded(item: Item) -> Outcome[Result]:
        try:
            outcome = outcome_of(item)
            done.append(outcome)
            if trouble := trouble_of(done):
                raise UserError(trouble)
            return outcome
        except (BudgetSpent, UserError):
            judge.halted.set()
            raise

    with ThreadPoolExecutor(judge.settings.concurrency) as pool:
        try:
            futures = {pool.submit(guarded, item): i for i, item in enumerate(items)}
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


def gather(
    judge: Judge,
    items: Sequence[Item],
    rereads: int,
    work: Callable[[Asker, Item], Result],
    bar: Any,  # noqa: ANN401
) -> tuple[dict[int, Outcome[Result]], str]:
    """(what the judge made of each item, by its number; why it ended early, or "").

    Args:
        bar: a progress bar, moved on by each item.
    """
    done: dict[int, Outcome[Result]] = {}
    with contextlib.closing(ask_about_all(judge, items, rereads, work)) as outcomes:
        try:
            for number, outcome in outcomes:
                done[number] = outcome
                bar.update()
        except (BudgetSpent, UserError) as error:
            return done, str(error)
    return done, ""


def stopped(trouble: str, achieved: str, spent: Spent) -> UserError:
    """The error of a command that ended early: what it has, what that took, how to go on."""
    return UserError(
        f"stopped: {trouble}. {achieved}, for {spent.requests} requests and {spent.tokens} tokens "
        "so far; every answer is kept, and none that can be read is paid for again: to go on, give "
        "the same command" + " with a higher limit" * ("is reached" in trouble)
    )


def trouble_of(done: Sequence[Outcome]) -> str:
    """Why to stop, after these were done one after the other; "" where to go on."""
    picky = done[-1].lasting and any(r.result is not None for r in done)
    limit = REFUSALS_IN_A_ROW if picky else FAILURES_IN_A_ROW
    last = done[-limit:]
    if len(last) < limit or any(r.left_out != UNANSWERED for r in last):
        return ""
    return f"{limit} prompts in a row got no answer; the last: {last[-1].told}"


def examples(done: Sequence[Outcome]) -> str:
    """What came in place of answers that can be used, two of them."""
    told = list(dict.fromkeys(r.told for r in done if r.told))
    return "; ".join(told[:2]) or "nothing"
