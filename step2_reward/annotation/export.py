"""What was labeled, as rankings that stage 2 and DPO read: one row a prompt."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json_lines, write_json_lines
from step2_reward.annotation.items import groups_in_words
from step2_reward.annotation.project import Project
from step2_reward.annotation.storage import Saved, Storage

ADDED = frozenset(
    "orders labelers ratings comments seconds saved revisions shown cannot_judge".split()
)
"""What a row of an export has besides the sample's own fields."""


def beside(path: Path) -> Path:
    """The export's second file: the prompts that nobody could judge."""
    return path.with_name(f"{path.stem}_unranked.jsonl")


def check_export(storage: Storage, path: Path, run: Path, reads: Collection[str]) -> None:
    """Refuses to export nothing, and to write over anything but an earlier export.

    Args:
        path: what is to be written, and `beside` it the second file.
        run: the run's folder, in which even an empty file is some stage's.
        reads: files of samples and of gold questions, or ''.

    Raises:
        UserError: nobody has answered; or a file would be lost, and which.
    """
    if not storage.labelers():
        raise UserError(
            f"{run}: nobody has answered anything yet, so that there is nothing to export; serve "
            "the page (--labelers anna ben carla without --export), and export later"
        )
    advice = "choose another file: --export rankings.jsonl"
    files = [*(Path(file) for file in reads if file), run / "sample" / "samples.jsonl"]
    owned = {file.resolve() for file in files}
    if path.is_dir():
        raise UserError(f"{path}: is a folder, but export must name a file; {advice}")
    for target in (path, beside(path)):
        place = target.resolve()
        same = place.exists() and any(f.exists() and f.samefile(place) for f in owned)
        if place in owned or same:
            raise UserError(f"{target}: the project reads its prompts from this file; {advice}")
        in_project = place.is_relative_to((run / "annotate").resolve())
        if in_project and (place.suffix != ".jsonl" or place.name.startswith(".")):
            raise UserError(f"{target}: this is where the project keeps its own files; {advice}")
        if place.exists() and not (place.is_file() and _is_export(target, run)):
            raise UserError(
                f"{target}: is there already, and is no export of rankings that may be replaced; "
                f"move it away, or {advice}"
            )


def _is_export(path: Path, run: Path) -> bool:
    """Whether all rows of a file have the form of `ranking_rows`; or nothing is lost with it."""
    try:
        rows = read_json_lines(path)
    except UserError:
        return False
    if not rows and path.resolve().is_relative_to(run.resolve()):
        # An export is empty where nobody could judge anything: then the second file is not.
        return beside(path).is_file() and _is_export(beside(path), run)
    return all(row.keys() >= ADDED for row in rows)


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


def write_export(project: Project, path: Path) -> str:
    """Writes the rankings, and beside them the prompts that nobody could judge, if there are.

    Returns:
        What was written, as a line for the terminal.

    Raises:
        UserError: nobody has answered an ordinary prompt, or the disk refuses.
    """
    ranked, unranked = split_rows(project)
    if not ranked and not unranked:
        raise UserError("only gold questions have been answered yet: there is nothing to export")
    line = f"{len(ranked)} prompts with {sum(len(r['orders']) for r in ranked)} rankings: {path}"
    second = beside(path)
    try:
        write_json_lines(path, ranked)
        if unranked:
            write_json_lines(second, unranked)
            line += f"; {len(unranked)} that nobody could judge: {second}"
        else:
            second.unlink(missing_ok=True)  # of an export before, when there were some
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; choose another file for --export"
        ) from None
    return line


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
