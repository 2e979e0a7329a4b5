"""The evaluation's answers that are judged: one of each model to the same prompts."""

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError, nearest
from common.evaluation.contenders import in_order
from common.evaluation.judges.arguments import AnswersArguments
from common.evaluation.run_files import Response, read_responses
from common.training.seeding import derive_seed


@dataclass(frozen=True)
class Question:
    """A prompt and what each model answered to it."""

    split: str
    index: int
    prompt: str
    answers: dict[str, str]
    """Model -> its answer."""


def mark_of(answer: str) -> str:
    """Tells one answer from others, so that no judgement is laid on another answer than it met."""
    return hashlib.sha256(answer.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def responses_of(run: Path) -> list[Response]:
    """All responses of the run's evaluation.

    Raises:
        UserError: there are none, or the file is unusable.
    """
    path = run / "evaluation" / "responses.jsonl"
    responses, _ = read_responses(path)
    if not responses:
        raise UserError(
            f"{path}: no answers to judge; run the evaluation first (launch/pipeline.sh does, or "
            ".venv/bin/python -m common.evaluation.main)"
        )
    return responses


def questions_of(run: Path, settings: AnswersArguments, seed: int) -> tuple[list[Question], str]:
    """The questions that judges get, and a note on what is left out, or "".

    They come in an order drawn by seed, the splits in turn, so that the first of them are a
    fair choice too; a higher limit only adds to them.

    Raises:
        UserError: an unknown split or model, fewer than two models, or no common prompt.
    """
    responses = responses_of(run)
    models = _chosen(settings.models, in_order(r.model for r in responses), "models")
    splits = _chosen(settings.splits, sorted({r.split for r in responses}), "splits")
    found: dict[tuple[str, int], Question] = {}
    for row in responses:
        wanted = row.model in models and row.split in splits and row.decoding == settings.decoding
        if wanted and row.sample == 0:
            empty = Question(row.split, row.index, row.prompt, {})
            found.setdefault((row.split, row.index), empty).answers[row.model] = row.response
    answered = Counter(model for q in found.values() for model in q.answers)
    absent = [model for model in models if not answered[model]]
    models = [model for model in models if answered[model]]
    if len(models) < 2:
        raise UserError(
            f"with decoding {settings.decoding} there are answers of "
            f"{', '.join(models) or 'no model'}, but at least two are compared"
        )
    whole = {
        place: Question(q.split, q.index, q.prompt, {m: q.answers[m] for m in models})
        for place, q in found.items()
        if all(m in q.answers for m in models)
    }
    if not whole:
        raise UserError(f"no prompt was answered by all of {', '.join(models)}")
    drawn: list[tuple[int, str, Question]] = []
    for split in splits:
        places = sorted(place for place in whole if place[0] == split)
        random.Random(derive_seed(seed, "judged prompts", split)).shuffle(places)
        drawn += [(n, split, whole[p]) for n, p in enumerate(places[: settings.limit or None])]
    drawn.sort(key=lambda entry: entry[:2])
    notes = [f"{', '.join(absent)}: no {settings.decoding} answers, not judged"] * bool(absent)
    if partly := len(found) - len(whole):
        notes.append(f"{partly} prompts that not all models answered are left out")
    return [question for *_, question in drawn], "; ".join(notes)


def _chosen(given: list[str], known: list[str], name: str) -> list[str]:
    for one in given:
        if one not in known:
            raise UserError(f"{name}: the evaluation has no '{one}'{nearest(one, known)}")
    return [one for one in known if not given or one in given]
