"""People rate the evaluation's answers on the annotation pages, not knowing who wrote what.

A file of samples is made for the pages, in which each prompt has its answers in an order drawn by
seed; who wrote them stands in a key beside it, which nobody who labels needs to see. What the pages
export is read back with the key.
"""

import hashlib
import json
import random
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

from common.data.agreement import kendalls_w
from common.data.fields import Problems
from common.data.labeled import Labeled, labeled_of
from common.data.labelers import JUDGES, PEOPLE, SIMULATED, who_ranked
from common.data.ranking_layouts import ranks_of_order
from common.errors import UserError
from common.evaluation.criteria import CRITERIA, MAX_POINTS
from common.evaluation.judges.answers import Question, mark_of
from common.evaluation.judges.judgements import (
    Judged,
    Judgement,
    Kind,
    Ranking,
    Rating,
    folder_of,
)
from common.files import read_json_lines, take_lock, write_json, write_json_lines
from common.training.seeding import derive_seed

NO_ANSWER = "(no answer)"
"""Stands for an empty one, which a page could not show."""
KINDS: dict[str, Kind] = {PEOPLE: "people", SIMULATED: "simulated", JUDGES: "ai"}


def project_of(run: Path) -> Path:
    """The labeling project's folder, a run's for `annotate.sh`."""
    return folder_of(run) / "people"


def prepare(run: Path, questions: Sequence[Question], decoding: str, seed: int) -> Path:
    """Writes `samples.jsonl` and `key.json`; the former's path.

    Raises:
        UserError: people have labeled other answers there, or a server shows them now.
    """
    folder = project_of(run)
    rows, items = [], {}
    for question in questions:
        name, responses, writers = hidden(question, seed)
        rows.append({"item": name, "prompt": question.prompt, "responses": responses})
        items[name] = {
            "split": question.split,
            "index": question.index,
            "writers": writers,
            "marks": {model: mark_of(text) for model, text in question.answers.items()},
        }
    samples, pages = folder / "samples.jsonl", folder / "annotate"
    # A server that shows other prompts than the file's would be given answers that fit no key.
    changed = not samples.is_file() or read_json_lines(samples) != rows
    lock = take_lock(pages / ".lock") if changed and pages.is_dir() else None
    try:
        if changed and (count := answers_in(pages / "labels.sqlite")):
            raise UserError(
                f"{folder}: people have begun to label here ({count} answers), and what is to be "
                "labeled now differs (the evaluation was done anew, or --limit, --decoding, "
                "--splits, --models or --seed changed); give what was given before, or move the "
                "folder away to begin anew"
            )
        write_json_lines(samples, rows)
        write_json(folder / "key.json", {"decoding": decoding, "items": items})
    finally:
        if lock:
            lock.close()
    return samples


def answers_in(database: Path) -> int:
    """How many answers the annotation pages have saved there; 0 without a database.

    Raises:
        UserError: the file cannot be read.
    """
    if not database.is_file():
        return 0
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            table = "SELECT COUNT(*) FROM sqlite_master WHERE name = 'answers'"
            if not connection.execute(table).fetchone()[0]:
                return 0  # left by a command that was refused
            return connection.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
    except sqlite3.Error as error:
        raise UserError(f"{database}: the database cannot be read: {error}") from None


def hidden(question: Question, seed: int) -> tuple[str, list[str], list[list[str]]]:
    """(a name that tells nothing, the answers in an order drawn by seed, who wrote each).

    Answers that are the same appear once; where all are, twice, for a page ranks two at least.
    """
    writers: dict[str, list[str]] = defaultdict(list)
    for model, text in question.answers.items():
        writers[text if text.strip() else NO_ANSWER].append(model)
    texts = list(writers) * (2 if len(writers) == 1 else 1)
    draw = random.Random(derive_seed(seed, "hidden answers", question.split, question.index))
    draw.shuffle(texts)
    content = json.dumps([question.split, question.index, question.prompt, texts])
    name = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return name, texts, [writers[text] for text in texts]


def read_back(run: Path, export: Path) -> list[Judgement]:
    """What was labeled, with the key: one judgement for each kind of labelers.

    Raises:
        UserError: no key or export, a row that is of no prompt of the project, unusable ratings,
            or none at all.
    """
    key = _read_key(project_of(run) / "key.json")
    items: Mapping[str, Any] = key["items"]
    problems = Problems()
    found: list[tuple[dict[str, Any], list[Labeled]]] = []
    for number, row in enumerate(read_json_lines(export), start=1):
        origin = f"{export}:{number}"
        try:
            item = items.get(str(row.get("item")))
            if item is None or len(row.get("responses") or []) != len(item["writers"]):
                raise UserError(f"{origin}: is of no prompt of {project_of(run) / 'samples.jsonl'}")
            labeled = [x for x in labeled_of(row, origin, "labeler") if x.labeler]
            for entry in labeled:
                _check_ratings(entry.notes.get("ratings"), len(item["writers"]), entry)
            found.append((item, labeled))
        except UserError as error:
            problems.add(error)
    problems.raise_if_any()
    who = who_ranked([x.labeler] for _, labeled in found for x in labeled)
    judgements = [
        _judgement(kind, set(who[group]), found, key["decoding"])
        for group, kind in KINDS.items()
        if who[group]
    ]
    if not any(p.ratings for j in judgements for p in j.prompts):
        raise UserError(
            f"{export}: holds no rating of a criterion; labelers give them on the page, below each "
            "answer, besides its place: --export again when they have"
        )
    return judgements


def _judgement(
    kind: Kind,
    names: set[str],
    found: Sequence[tuple[dict[str, Any], list[Labeled]]],
    decoding: str,
) -> Judgement:
    """What labelers of one kind said."""
    prompts, agreement = [], []
    unrated = 0
    for item, everybody in found:
        labeled = [x for x in everybody if x.labeler in names]
        if not labeled:
            continue
        ranks = [
            ranks_of_order(x.order, len(x.responses), "orders", x.origin, partial=True)
            for x in labeled
        ]
        w = kendalls_w(ranks)
        agreement += [w] * (w is not None)
        ratings, rankings = [], []
        for entry, places in zip(labeled, ranks, strict=True):
            given = entry.notes.get("ratings") or []
            unrated += not any(given)
            for points, writers in zip(given, item["writers"], strict=False):
                ratings += [Rating(m, entry.labeler, points) for m in writers if points]
            rankings.append(Ranking(entry.labeler, _by_model(places, item["writers"])))
        prompts.append(
            Judged(item["split"], item["index"], item["marks"], tuple(ratings), (), tuple(rankings))
        )
    raters = {rating.labeler for prompt in prompts for rating in prompt.ratings}
    per_prompt = Counter(len(p.rankings) for p in prompts)
    facts = {
        "labelers": sorted(raters) if kind != "people" else [],
        "labelers_without_ratings": len(names) - len(raters),
        "labelers_per_prompt": {str(n): per_prompt[n] for n in sorted(per_prompt)},
        "orders_without_ratings": unrated,
        "kendalls_w": fmean(agreement) if agreement else None,
        "kendalls_w_prompts": len(agreement),
    }
    name = str(kind)
    if kind == "ai":  # by another name than the same model's that was asked by `ai`
        name = f"{', '.join(sorted(names))} on the pages"
    return Judgement(kind, name, len(raters), decoding, tuple(prompts), facts)


def _by_model(ranks: Sequence[float | None], writers: Sequence[Sequence[str]]) -> dict[str, float]:
    """Each model's rank: the mean over the places at which its answer was shown."""
    places: dict[str, list[float]] = defaultdict(list)
    for rank, models in zip(ranks, writers, strict=True):
        for model in models:
            places[model] += [rank] * (rank is not None)
    return {model: fmean(found) for model, found in places.items() if found}


def _check_ratings(ratings: Any, responses: int, entry: Labeled) -> None:  # noqa: ANN401
    where = f"{entry.origin}: field 'ratings' of {entry.labeler}"
    if ratings is None:
        return
    if not isinstance(ratings, list) or len(ratings) != responses:
        raise UserError(f"{where} must have an object for each of {responses} responses")
    for points in ratings:
        if not isinstance(points, dict) or not all(map(_is_valid, points.items())):
            raise UserError(
                f"{where} must hold points from 0 to {MAX_POINTS:g} of the eight criteria "
                f"({', '.join(CRITERIA)})"
            )


def _is_valid(entry: tuple[str, Any]) -> bool:
    name, points = entry
    number = isinstance(points, int | float) and not isinstance(points, bool)
    return name in CRITERIA and number and 0 <= points <= MAX_POINTS


def _read_key(path: Path) -> dict[str, Any]:
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        return {"decoding": key["decoding"], "items": key["items"]}
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; it says who wrote which answer, and is written by the same "
            "command without --ratings"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is no key that can be read; was it changed?") from None
