"""Scores of right and wrong answers to the same prompts, for `right_minus_wrong`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.data.fields import Problems, text_of
from common.data.readers import read_rows
from common.data.records import Message
from common.data.sources import DataSource
from common.data.template import Template
from common.errors import UserError
from common.reward.scoring import RewardScorer


@dataclass(frozen=True)
class ProbeRow:
    """A prompt with a right and a wrong answer."""

    prompt: str
    right: str
    wrong: str


def read_probe(file: str) -> list[ProbeRow]:
    """The rows of a probe file, which has the columns `prompt`, `right` and `wrong`.

    Args:
        file: in any format that data may have; empty for no probe.

    Raises:
        UserError: no such file, a field that is missing, empty or no string (with all places),
            not one row.
    """
    problems, rows = Problems(), []
    for place, row in read_rows(DataSource(file), problems.add) if file else ():
        try:
            values = (text_of(row.get(name), name, place) for name in ("prompt", "right", "wrong"))
            rows.append(ProbeRow(*values))
        except UserError as error:
            problems.add(error)
    problems.raise_if_any()
    if file and not rows:
        raise UserError(f"{file}: there is not one row in it")
    return rows


def probe_scores(
    engine: Any, template: Template, rows: list[ProbeRow], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores `[rows]` of the right and of the wrong answers.

    Every rank scores all rows (they are few).
    """
    scorer = RewardScorer(engine, template, template, 0.0, 1.0)
    prompts = [[Message("user", r.prompt)] for r in rows]
    engine.eval()
    right, wrong = (
        scorer.score_texts(prompts, answers, batch_size).double().cpu().numpy()
        for answers in ([r.right for r in rows], [r.wrong for r in rows])
    )
    engine.train()
    return right, wrong
