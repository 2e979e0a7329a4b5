"""What a restart changes in a labeling project that has begun."""

import json
from collections.abc import Callable

from step2_reward.annotation.project import Project
from step2_reward.annotation.storage import Storage


def say_changes(project: Project, gold_file: str, say: Callable[[str], None]) -> None:
    """Tells in which settings this start differs from the one before, and keeps those of this one.

    Args:
        gold_file: where the gold questions stand; an export must not be written over them.
    """
    now = {
        "labelers_per_prompt": project.rules.per_prompt,
        "gold": [item.key for item in project.gold],
        "gold_file": gold_file,
    }
    kept = project.storage.change_note("settings", json.dumps(now))
    before = json.loads(kept) if kept else now
    gone = len(set(before["gold"]) - set(now["gold"]))
    new = len(set(now["gold"]) - set(before["gold"]))
    if gone:
        say(f"{_questions(gone)} no longer asked; their answers stay")
    if new:
        say(f"{_questions(new)} new")
    was, per_prompt = before["labelers_per_prompt"], now["labelers_per_prompt"]
    if was != per_prompt:
        say(
            f"prompts are given to {per_prompt} instead of {was} labelers from now on; answers "
            "that are there stay"
        )


def gold_file_of(storage: Storage) -> str:
    """The file of gold questions of the last start; '' when there were none."""
    note = storage.read_note("settings")
    return json.loads(note)["gold_file"] if note else ""


def _questions(count: int) -> str:
    return f"{count} gold question{'s are' if count > 1 else ' is'}"
