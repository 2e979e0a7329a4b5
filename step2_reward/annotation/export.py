"""What was labeled, as rankings that stage 2 and DPO read: one row a prompt."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from step2_reward.annotation.items import groups_in_words
from step2_reward.annotation.project import Project
from step2_reward.annotation.storage import Saved


def ranking_rows(project: Project) -> Iterator[dict[str, Any]]:
    """One row for each prompt that anybody answered, in the samples' order, without gold questions.

    A row is the sample's own, and besides: `orders`, one per labeler who could judge (numbers of
    responses, best first; a list holds those that are tied); `labelers`, whose they are, and
    likewise `ratings` (for each response {criterion: points}, or null), `comments`, `seconds` of
    work, `saved` (UTC), `revisions` and `shown` (the order on the page). `cannot_judge` lists the
    others, with their comments.
    """
    by_item: dict[str, list[Saved]] = defaultdict(list)
    for answer in project.storage.answers():
        by_item[answer.item].append(answer)
    for item in project.samples:
        answers = sorted(by_item.get(item.key, ()), key=lambda a: a.labeler)
        if not answers:
            continue
        judged = [a for a in answers if not a.content["cannot_judge"]]
        yield {
            **item.row,
            "orders": [groups_in_words(a.content["order"]) for a in judged],
            "labelers": [a.labeler for a in judged],
            "ratings": [a.content["ratings"] or None for a in judged],
            "comments": [a.content["comment"] for a in judged],
            "seconds": [a.content["seconds"] for a in judged],
            "saved": [_time(a.saved) for a in judged],
            "revisions": [a.revision for a in judged],
            "shown": [a.content["shown"] for a in judged],
            "cannot_judge": [
                {
                    "labeler": a.labeler,
                    "comment": a.content["comment"],
                    "saved": _time(a.saved),
                }
                for a in answers
                if a.content["cannot_judge"]
            ],
        }


def split_rows(
    project: Project,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows with at least one order; those that nobody could judge: no reader of rankings wants
    them)."""
    rows = list(ranking_rows(project))
    return [r for r in rows if r["orders"]], [r for r in rows if not r["orders"]]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
