"""What a reward model says of held-out responses, beside what their labelers said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from common.data.aggregation import mean_ranks
from common.data.agreement import kendalls_w
from common.data.encoding import Comparison
from common.data.records import Pair, Ranking
from common.reward.training import PairObjective
from common.training.supervised import score_examples


class Responses(NamedTuple):
    """Responses that are in some pair, each once; `[responses]` each."""

    scores: np.ndarray
    """Raw."""
    lengths: np.ndarray
    """In characters, as written."""
    prompts: np.ndarray
    """Numbers of their prompts."""
    standing: np.ndarray
    """Lower is better: the mean rank or, where rankings are not known, the share of its pairs that
    a response loses."""


@dataclass(frozen=True)
class HeldOut:
    """Scores of held-out pairs."""

    pairs: list[Pair]
    prompts: np.ndarray
    """`[pairs]`, the number of each one's prompt."""
    scores: np.ndarray
    """`[pairs, 2]` raw (preferred, other)."""
    responses: Responses
    rankings: list[Ranking | None]
    """Of each prompt; None where it is not known."""

    @property
    def differences(self) -> np.ndarray:
        """Score of the preferred minus score of the other response, `[pairs]`."""
        return self.scores[:, 0] - self.scores[:, 1]

    @property
    def ranked(self) -> bool:
        """Whether all prompts' rankings are known, and say more than who wins which pair."""
        known = [r for r in self.rankings if r is not None]
        return len(known) == len(self.rankings) and any(len(r.responses) > 2 for r in known)

    def agreement(self) -> list[float | None]:
        """Kendall's W of each pair's prompt: of its labelers, or as the pair's file has it."""
        found = [None if r is None else kendalls_w(r.ranks) for r in self.rankings]
        return [
            found[i] if pair.agreement is None else pair.agreement
            for i, pair in zip(self.prompts, self.pairs, strict=True)
        ]


def score_held_out(
    engine: Any, objective: PairObjective, rankings: Sequence[Ranking], batch_size: int
) -> HeldOut:
    """Scores all responses of held-out pairs, each once. A collective; the same on every rank.

    Args:
        rankings: of the same prompts, as far as they are known.
        batch_size: prompts per forward on each rank.
    """
    comparisons = objective.comparisons
    return held_out_of(comparisons, response_scores(engine, objective, batch_size), rankings)


@torch.no_grad()
def response_scores(engine: Any, objective: PairObjective, batch_size: int) -> list[list[float]]:
    """Raw scores of each comparison's rows. A collective."""
    return score_examples(
        engine,
        objective.lengths,
        [len(c.rows) for c in objective.comparisons],
        batch_size,
        lambda indices: objective.row_scores(engine, indices).tolist(),
    )


def held_out_of(
    comparisons: Sequence[Comparison], scores: Sequence[list[float]], rankings: Sequence[Ranking]
) -> HeldOut:
    """Puts scores of rows and rankings of prompts to the pairs that they belong to."""
    by_prompt: dict[tuple, list[Ranking]] = {}
    for ranking in rankings:
        by_prompt.setdefault(ranking.messages, []).append(ranking)
    known = [ranking_of(c, by_prompt.get(tuple(c.records[0].messages), [])) for c in comparisons]
    complete = all(r is not None for r in known)
    found: list[tuple[float, int, int, float]] = []
    for number, (comparison, values, ranking) in enumerate(
        zip(comparisons, scores, known, strict=True)
    ):
        for i, text in texts_of(comparison).items():
            standing = mean_rank(ranking, text) if complete and ranking else lost(comparison, i)
            found.append((values[i], len(text), number, standing))
    columns = [np.array(column) for column in zip(*found, strict=True)]
    return HeldOut(
        [p for c in comparisons for p in c.records],
        np.array([n for n, c in enumerate(comparisons) for _ in c.pairs]),
        np.array(
            [(v[i], v[j]) for c, v in zip(comparisons, scores, strict=True) for i, j in c.pairs],
            dtype=np.float64,
        ),
        Responses(*columns),
        known,
    )


def texts_of(comparison: Comparison) -> dict[int, str]:
    """The text of each row that is in some pair, in the order of the rows."""
    texts: dict[int, str] = {}
    for (i, j), pair in zip(comparison.pairs, comparison.records, strict=True):
        texts[i], texts[j] = pair.chosen, pair.rejected
    return dict(sorted(texts.items()))


def ranking_of(comparison: Comparison, candidates: Sequence[Ranking]) -> Ranking | None:
    """The ranking, of these, that has all responses of the comparison's pairs."""
    texts = set(texts_of(comparison).values())
    return next((r for r in candidates if texts <= set(r.responses)), None)


def mean_rank(ranking: Ranking, text: str) -> float:
    """Over the labelers who ranked this response, among all responses (see `mean_ranks`)."""
    rank = mean_ranks(ranking.ranks)[ranking.responses.index(text)]
    if rank is None:
        raise ValueError("nobody compared a response of a pair")
    return rank


def lost(comparison: Comparison, row: int) -> float:
    """Share of its pairs in which the other response is preferred to this one."""
    sides = [side for pair in comparison.pairs for side, i in enumerate(pair) if i == row]
    return sum(sides) / len(sides)
