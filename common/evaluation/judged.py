"""What the evaluation has so far, for its checkpoints and for its files."""

from typing import Any

from common.data.template import Template
from common.evaluation.tokens import TrainingFacts, token_row, wanted


class Judged:
    """The responses so far, and the scores of some of their tokens; the same on every rank."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.scored: list[dict[str, Any]] = []
        """Those whose tokens are scored, with their `ids`."""
        self.token_scores: dict[str, list[list[float]]] = {}
        """Model -> a number at every token of each of them."""
        self.scale: tuple[float, float] | None = None
        """Mean and deviation of the reward model's scores over reference responses."""

    def add(self, place: dict[str, Any], row: dict[str, Any], token_prompts: int) -> None:
        """Takes in an answer; `place` says which it is, `token_prompts` whether it is scored."""
        kept = place | {name: value for name, value in row.items() if name != "ids"}
        self.rows.append(kept)
        if wanted(kept, token_prompts):
            self.scored.append(kept | {"ids": row["ids"]})

    def token_rows(
        self, template: Template, training: TrainingFacts | None
    ) -> list[dict[str, Any]]:
        """The rows of `tokens.jsonl`."""
        return [
            token_row(
                row, {n: s[i] for n, s in self.token_scores.items()}, template, training, self.scale
            )
            for i, row in enumerate(self.scored)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        vars(self).update(state)
