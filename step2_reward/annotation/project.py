"""A labeling project: its prompts, who is at work on which, and what has been answered."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from step2_reward.annotation.answers import Answer, content_of, places_of
from step2_reward.annotation.assignment import (
    choose,
    gold_is_due,
    gold_to_come,
    next_gold,
    shown_order,
)
from step2_reward.annotation.items import Item, fingerprint
from step2_reward.annotation.storage import Desk, NotYours, Saved, Storage

EARLIER = 100
"""Answers on a page of a labeler's earlier ones."""


@dataclass(frozen=True)
class Rules:
    """How prompts are handed out."""

    per_prompt: int = 3
    """Labelers of each prompt."""
    lease_seconds: float = 1800.0
    """After so long without a sign of life a prompt goes to somebody else."""
    gold_every: int = 10
    """Ordinary prompts per gold question."""
    seed: int = 0
    ask_ratings: bool = False
    """Points on the criteria are wanted as much as the order."""


class Project:
    """All that the pages can do. Safe to be used by several threads."""

    def __init__(
        self,
        samples: Sequence[Item],
        gold: Sequence[Item],
        storage: Storage,
        rules: Rules,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises:
        UserError: people have answered other samples in this project.
        """
        asked = {_question(item) for item in gold}
        self.samples = [
            item
            for item in samples
            if _question(item) not in asked or storage.times_answered(item.key)
        ]
        """Without those that are gold questions too: nobody need be asked the same twice."""
        self.left_out = len(samples) - len(self.samples)
        self.gold = list(gold)
        self.storage = storage
        self.rules = rules
        self._clock = clock
        self._items = {item.key: item for item in (*self.samples, *gold)}
        self._free = {
            item.key: None
            for item in self.samples
            if storage.times_answered(item.key) < rules.per_prompt
        }
        """Prompts with a place that is not answered, in the order of the file."""
        self._gold = [item.key for item in gold]
        now = f"{len(samples)} prompts, {fingerprint(samples)}"
        before = storage.note("samples", now)
        if before != now and not storage.labelers():
            storage.change_note("samples", now)  # nothing is lost with the others
        elif before != now:
            raise UserError(
                f"the samples have changed since this project was begun: there were "
                f"{before.split(',')[0]}, and now there are {now.split(',')[0]}"
                + (" with other texts" if before.split(",")[0] == now.split(",")[0] else "")
                + "; give it the old file, or begin another project with another --run"
            )

    def item(self, key: str) -> Item | None:
        """The prompt with this key."""
        return self._items.get(key)

    def next_page(self, labeler: str) -> dict[str, Any] | None:
        """What a labeler is to rank now; None when there is nothing at the moment.

        Whoever comes back finds the prompt that was left open.
        """
        now = self._clock()
        desks = self.storage.open_desks(labeler, now)
        desk = next((desk for desk in desks if desk.item in self._items), None)
        if desk:
            self.storage.extend(desk.item, labeler, now, now + self.rules.lease_seconds)
            return self._page(desk)
        lost: set[str] = set()
        while key := self._choose(labeler, now, lost):
            shown = shown_order(len(self._items[key].responses), self.rules.seed, labeler, key)
            until = now + self.rules.lease_seconds
            desk = self.storage.take(key, labeler, shown, now, until, self._places(key))
            if desk:
                return self._page(desk)
            lost.add(key)  # somebody was faster
        return None

    def page_again(self, labeler: str, key: str) -> dict[str, Any]:
        """A prompt that the labeler has answered, with the answer, or is at work on.

        Raises:
            NotYours: neither.
        """
        desk = self.storage.desk(key, labeler) if key in self._items else None
        if not desk or not (desk.answered or desk.until > self._clock()):
            raise NotYours
        return self._page(desk)

    def still_at_work(self, labeler: str, key: str) -> bool:
        """Keeps the labeler's place at a prompt; False when it has timed out."""
        now = self._clock()
        return self.storage.extend(key, labeler, now, now + self.rules.lease_seconds)

    def save(self, labeler: str, key: str, answer: Answer) -> tuple[Saved, bool]:
        """Makes an answer durable; returns it, and whether it is new.

        Raises:
            BadAnswer, NotYours, OtherContent: see `content_of` and `Storage.save`.
        """
        desk = self.storage.desk(key, labeler) if key in self._items else None
        if not desk:
            raise NotYours
        content = content_of(answer, desk.shown)
        saved = self.storage.save(
            answer.answer_id, key, labeler, content, self._clock(), self._places(key)
        )
        if self.storage.times_answered(key) >= self.rules.per_prompt:
            self._free.pop(key, None)
        return saved

    def progress(self, labeler: str) -> dict[str, int]:
        """For the labeler's own page: what is `done`, and how much there is `left` at most.

        What is on others' desks is left: it may be given back. Gold questions to come count as
        well, or the number would tell which prompts they are.
        """
        mine = self.storage.answered_by(labeler)
        free = self._free.keys()
        left = len(free) - len(free & mine)
        gold, ordinary = self._gold_and_others(mine)
        coming = gold_to_come(
            ordinary + left, gold, len(self._gold), self.rules.gold_every, self.rules.seed, labeler
        )
        return {"done": len(mine & self._items.keys()), "left": left + coming}

    def mine(self, labeler: str, saved: float = math.inf, key: str = "") -> dict[str, Any]:
        """A page of a labeler's own `answers`, the newest first, as a list to choose from.

        Args:
            saved, key: the page before said where `older` ones begin; by default with the newest.

        Returns:
            `answers`; `older`, {saved, key} for the next page, or None on the last one; and how
            many there are in `all`.
        """
        found = self.storage.answers_before(labeler, saved, key, EARLIER + 1)
        more, found = found[EARLIER:], found[:EARLIER]
        answers = [
            {
                "key": saved.item,
                "prompt": _excerpt(self._items[saved.item].messages[-1].content),
                "saved": saved.saved,
                "cannot_judge": saved.content["cannot_judge"],
                "corrected": saved.revision > 1,
            }
            for saved in found
            if saved.item in self._items
        ]
        return {
            "answers": answers,
            "older": {"saved": found[-1].saved, "key": found[-1].item} if more else None,
            "all": len(self.storage.answered_by(labeler) & self._items.keys()),
        }

    def _choose(self, labeler: str, now: float, lost: set[str]) -> str | None:
        mine = self.storage.answered_by(labeler)
        gold_done, ordinary = self._gold_and_others(mine)
        rules = self.rules
        if self._gold and gold_is_due(ordinary, gold_done, rules.gold_every, rules.seed, labeler):
            key = next_gold(self._gold, mine, rules.seed, labeler)
            if key:
                return key
        taken = self.storage.taken(now, but=labeler)
        return choose(list(self._free), taken, mine | lost, rules.per_prompt)

    def _gold_and_others(self, mine: set[str]) -> tuple[int, int]:
        """How many gold questions are among a labeler's answers, and how many other prompts."""
        gold = sum(key in mine for key in self._gold)
        return gold, len(mine & self._items.keys()) - gold

    def _places(self, key: str) -> int | None:
        """Gold questions are for everybody."""
        return None if self._items[key].known else self.rules.per_prompt

    def _page(self, desk: Desk) -> dict[str, Any]:
        """What the page shows: no number and no name that would give anything away."""
        item = self._items[desk.item]
        mine = self.storage.answer(desk.item, desk.labeler) if desk.answered else None
        return {
            "key": item.key,
            "messages": [{"role": m.role, "content": m.content} for m in item.messages],
            "responses": [item.responses[number] for number in desk.shown],
            "answer": places_of(mine.content) if mine else None,
        }


def _question(item: Item) -> tuple[Any, ...]:
    """The same for items that ask the same, in whichever order the responses stand."""
    return item.messages, tuple(sorted(item.responses))


def _excerpt(text: str, most: int = 140) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
