"""Rankings made elsewhere join the project's: Label Studio's, Argilla's, and plain rankings files.

The same file twice changes nothing: an order is told by its prompt, responses and labeler, of whom
the one that was saved last stays; where one of the two has no date, the one imported last.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.config.arguments import RunArguments, option
from common.data.encoding import describe
from common.data.imports import Imported, read_labeled
from common.data.labeled import AI, UNABLE, Hints
from common.data.merging import merge
from common.data.sources import DataSource, parse_sources
from common.errors import UserError
from common.files import take_lock, write_json_lines
from common.training.run import run_stage
from common.training.stage import Stage


@dataclass
class ImportArguments:
    """The files, and what they do not say themselves."""

    HARMLESS: ClassVar = ("rankings",)

    files: list[str] = option(
        [],
        "files to import: Label Studio's or Argilla's export, or rankings; or mappings with path "
        "and columns (for example prompt: question)",
    )
    rankings: str = option(
        "", "rankings file that they are merged into; by default RUN/import/rankings.jsonl"
    )
    labeler: str = option(
        "", "name for labelers that a file does not name; by default the file's own"
    )
    question: str = option("", "the Ranker tag or RankingQuestion, where an export has several")
    buckets: list[str] = option(
        [], "Label Studio's buckets, all of them, the best first; what is in none was not ranked"
    )
    response_fields: list[str] = option(
        [], "Argilla's fields that hold the responses, where their names do not tell"
    )


ARGUMENTS = (RunArguments, ImportArguments)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: ImportArguments) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    if not settings.files:
        raise UserError("nothing to import: name the files with --files")
    target = Path(settings.rankings or stage.folder / "rankings.jsonl")
    if target.is_dir():
        raise UserError(f"{target}: is a folder; name a file, with --rankings")
    sources = parse_sources(settings.files)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = take_lock(target.with_name(f".{target.name}.lock"))
    stage.begin_anew()  # what is there already is told by content, not by a file's name

    before = Imported([], Counter(), Counter())
    if target.is_file() and target.stat().st_size:
        before = read_labeled([DataSource(str(target))])
    hints = Hints(
        settings.labeler,
        settings.question,
        tuple(settings.buckets),
        tuple(settings.response_fields),
    )
    found = read_labeled(sources, hints)
    known, already = merge(before.items)
    rows, counts = merge([*before.items, *found.items])
    counts.subtract(already)
    if rows != known:
        write_json_lines(target, rows)
    lock.close()

    unable = sum(len(row.get(UNABLE, [])) for row in rows)
    rows = [row for row in rows if row["orders"]]
    if not rows and not unable:
        raise UserError(f"no order was found ({describe(found.left_out) or 'no row has one'})")
    for remark, times in sorted(found.remarks.items()):
        stage.say(f"{times} {remark}")
    told = Counter({f"orders {name}": n for name, n in counts.items()})
    labelers = Counter(name for row in rows for name in row["labelers"])
    ai = sum(name.startswith(AI) for name in labelers)
    stage.finish(
        {
            "rankings": str(target),
            "prompts": len(rows),
            "orders": sum(labelers.values()),
            "labelers": len(labelers),
            "ai_labelers": ai,
            "cannot_judge": unable,
            "imported": dict(+told),
            "left_out": dict(found.left_out),
            "remarks": dict(found.remarks),
        },
        f"{target}: {sum(labelers.values())} orders by {len(labelers)} labelers"
        + f" ({ai} of them AI feedback)" * bool(ai)
        + f" for {len(rows)} prompts"
        + f", and {unable} times somebody could not judge" * bool(unable)
        + "; "
        + (describe(told + found.left_out) or "nothing was imported"),
        outputs=[target],
    )


if __name__ == "__main__":
    run_stage("import", ARGUMENTS, main, distributed=False)
