"""The files of the embedded domain: disjoint splits, each from its own random stream.

Every prompt text belongs to exactly one split, decided by a digest of the text, so the splits are
disjoint however large each of them is, and a larger size only appends rows.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common.data.ad_moderation.answers import draw_answer, right_and_wrong
from common.data.ad_moderation.general import draw_general, draw_general_answer
from common.data.ad_moderation.tasks import Task, draw_task
from common.errors import UserError
from common.files import write_json_lines

GENERAL_SHARES: dict[str, float] = {
    "sft_general": 1.0,
    "reward_prompts": 0.19,
    "rlhf_prompts": 0.17,
    "eval_general": 1.0,
}
"""Share of general questions among a split's prompts, 0 where not given. A reward model that has
seen too few answers to them makes PPO trade knowledge for a favourite word."""

GENERAL_RANGES: dict[str, float] = {
    "sft_general": 0.30,
    "reward_prompts": 0.37,
    "rlhf_prompts": 0.23,
    "eval_general": 0.10,
}
"""Share of all general questions that each split may use."""

AD_RANGES: dict[str, float] = {
    "sft": 0.45,
    "reward_prompts": 0.15,
    "rlhf_prompts": 0.25,
    "eval_seen": 0.10,
    "probe": 0.05,
}
"""Share of all ad prompts in seen words that each split may use."""

_PATIENCE = 2000
"""Draws in a row without a new prompt after which a split counts as exhausted."""


@dataclass(frozen=True)
class Sizes:
    """Rows of each split."""

    sft: int = 27000
    sft_general: int = 900
    reward_prompts: int = 5600
    rlhf_prompts: int = 3000
    eval_seen: int = 200
    eval_unseen: int = 200
    eval_general: int = 200
    probe: int = 200

    def scaled(self, factor: float) -> "Sizes":
        """Every size times `factor`, at least one row each."""
        return Sizes(
            **{f.name: max(1, round(getattr(self, f.name) * factor)) for f in fields(self)}
        )


def owner(prompt: str, ranges: Mapping[str, float]) -> str:
    """The split that a prompt text belongs to: a fixed draw from `ranges` by its digest."""
    digest = hashlib.sha256(prompt.encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64 * sum(ranges.values())
    for name, share in ranges.items():
        position -= share
        if position < 0:
            return name
    return next(reversed(ranges))


def _stream(seed: int, *purpose: str) -> random.Random:
    """A random stream of its own for a purpose. (A string seed is digested, not hashed.)"""
    return random.Random(f"{seed}/{'/'.join(purpose)}")


def _tasks(
    seed: int, split: str, *, general_share: float, draw_ad_task: Callable[[random.Random], Task]
) -> Iterator[Task]:
    """Endless distinct tasks of a split."""
    stream = _stream(seed, split)
    used: set[str] = set()
    failures = 0
    general = stream.random() < general_share
    while failures < _PATIENCE:
        task = draw_general(stream) if general else draw_ad_task(stream)
        ranges = GENERAL_RANGES if general else AD_RANGES
        # Unseen products cannot collide with another split, so they need no range.
        foreign = split != "eval_unseen" and owner(task.prompt, ranges) != split
        if foreign or task.prompt in used:
            failures += 1
            continue
        failures = 0
        used.add(task.prompt)
        yield task
        general = stream.random() < general_share


def split_rows(seed: int, split: str) -> Iterator[dict[str, Any]]:
    """Endless rows of a split; row i does not depend on how many are taken."""
    pool = "unseen" if split == "eval_unseen" else "seen"
    tasks = _tasks(
        seed,
        split,
        general_share=GENERAL_SHARES.get(split, 0.0),
        draw_ad_task=lambda rng: draw_task(rng, pool),
    )
    for task in tasks:
        answers = _stream(seed, split, "answers", task.prompt)
        row: dict[str, Any] = {"prompt": task.prompt}
        if split == "sft":
            row["completion"] = draw_answer(answers, task.facts)[1]
        elif split == "sft_general":
            row["completion"] = draw_general_answer(answers, task.facts)[1]
        elif split == "probe":
            row["right"], row["wrong"] = right_and_wrong(answers, task.facts)
        row["facts"] = task.facts
        yield row


def write_splits(directory: Path, *, seed: int, sizes: Sizes | None = None) -> dict[str, int]:
    """Writes every split as `directory/NAME.jsonl` and returns the number of rows of each.

    Rows hold `prompt` and `facts`, and beside these `completion` (sft, sft_general) or `right` and
    `wrong` (probe). The same seed gives the same bytes.

    Raises:
        UserError: a size asks for more distinct prompts than the domain has.
    """
    counts = {}
    for field in fields(Sizes):
        name, size = field.name, getattr(sizes or Sizes(), field.name)
        rows = [row for row, _ in zip(split_rows(seed, name), range(size), strict=False)]
        if len(rows) < size:
            raise UserError(
                f"the split {name} of the embedded domain has only {len(rows)} distinct prompts, "
                f"{size} were asked for: ask for fewer"
            )
        write_json_lines(directory / f"{name}.jsonl", rows)
        counts[name] = len(rows)
    return counts
