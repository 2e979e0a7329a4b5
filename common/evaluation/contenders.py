"""Who answers the held-out prompts: SFT and RLHF, further models, and best-of-n sampling."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from common.evaluation.run_files import MODELS


@dataclass(frozen=True)
class Contender:
    """A model that answers, or a way of answering."""

    name: str
    """As the rows of `responses.jsonl` and the report have it."""
    path: str
    """Folder or hub name of its model."""
    samples: int
    """Responses that are sampled for each prompt."""
    greedy: bool = True
    """Whether a greedy one comes after them."""
    purpose: str = "final evaluation"
    """Of its random draws: contenders of one purpose draw alike."""

    @property
    def passes(self) -> int:
        """Responses to each prompt."""
        return self.samples + self.greedy


def contenders(
    sft: str, rlhf: str, further: Sequence[str], samples: int, best_of: int
) -> list[Contender]:
    """All contenders; those that share a model follow one another.

    Best-of-n has draws of its own: among the very samples that it is held against it could not
    lose by the reward model's score.

    Args:
        sft, rlhf, further: model folders; further ones are named by their folder.
        samples: of a model to each prompt.
        best_of: n; 0 leaves best-of-n out.

    Raises:
        UserError: two models of the same name.
    """
    found = [Contender("sft", sft, samples)]
    if best_of:
        found.append(
            Contender(f"best_of_{best_of}", sft, best_of, greedy=False, purpose="best of n")
        )
    found.append(Contender("rlhf", rlhf, samples))
    for path in further:
        name = path.rstrip("/").rsplit("/", 1)[-1]
        if name.strip(" .") == "" or name in [c.name for c in found]:
            raise UserError(
                f"further: '{path}': another model is named '{name}' in this evaluation, or that "
                "is no name; give its folder another one"
            )
        found.append(Contender(name, path, samples))
    return found


def keep_best(rows: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The rows with one in place of all those that best-of-n sampled for a prompt.

    It is the one that the reward model scores highest, the first of equals; it gets `scores`, of
    all of them in the order of their draws, and `chosen`, its place among them.

    Args:
        rows: of all contenders; with `split`, `index`, `sample`, `reward`.
        name: best-of-n's.
    """
    candidates: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        if row["model"] == name:
            candidates.setdefault((row["split"], row["index"]), []).append(row)
    kept = []
    for row in rows:
        if row["model"] != name:
            kept.append(row)
        elif row["sample"] == 0:
            drawn = sorted(candidates[row["split"], row["index"]], key=lambda r: r["sample"])
            scores = [r["reward"] for r in drawn]
            best = scores.index(max(scores))
            kept.append({**drawn[best], "sample": 0, "chosen": best, "scores": scores})
    return kept


def kl_bound(n: int) -> float:
    """log n − (n − 1)/n, nats: best-of-n is at most so far from the policy that it samples from.

    An upper bound of KL(best-of-n ‖ policy), not the KL itself, which is less where several of
    the n responses may be the same (Beirami et al. 2024, https://arxiv.org/abs/2401.01879, thm. 1).
    """
    return math.log(n) - (n - 1) / n


def best_of_curve(scores: Sequence[float]) -> list[float]:
    """Expected best score of k samples, k = 1 … n, from n scores drawn alike, `[n]`.

    The mean of the maximum over all subsets of k: C(i−1, k−1)/C(n, k) of them have the i-th lowest
    score as their highest (Nakano et al. 2021, https://arxiv.org/abs/2112.09332, App. I).
    """
    n, ordered = len(scores), sorted(scores)
    return [
        sum(math.comb(i, k - 1) * score for i, score in enumerate(ordered)) / math.comb(n, k)
        for k in range(1, n + 1)
    ]


def in_order(names: Iterable[str]) -> list[str]:
    """Each contender once: SFT, RLHF, then the others by name."""
    found = set(names)
    return [m for m in MODELS if m in found] + sorted(found.difference(MODELS))


def title(name: str) -> str:
    """A contender's name for readers."""
    return name.upper() if name in MODELS else name.replace("best_of_", "best of ")
