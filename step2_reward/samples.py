"""Which responses are drawn already and which are still wanted, over all ranks; resumable."""

from collections.abc import Sequence
from typing import Any, TypeVar

from common.errors import UserError
from common.training.distributed import any_rank, gather_objects, rank, world_size
from common.training.resume.arguments import how_to_start_over

Value = TypeVar("Value")


class Samples:
    """Distinct responses to this rank's prompts, and what it still has to draw.

    Missing distinct responses are drawn again in further attempts. Part of a checkpoint, where all
    ranks' prompts are together: the drawing can go on with other ranks.
    """

    def __init__(self, lengths: Sequence[int], responses: int, redraws: int) -> None:
        """Args:
        lengths: tokens of each prompt, of all ranks.
        responses: wanted for each.
        redraws: attempts after the first.
        """
        # Where there are more ranks than prompts, some repeat the last one, and draw the same.
        mine = list(range(rank(), len(lengths), world_size())) or [len(lengths) - 1]
        self.mine = sorted(mine, key=lambda i: lengths[i])
        self.responses = responses
        self.redraws = redraws
        self.found: dict[int, list[dict[str, Any]]] = {i: [] for i in mine}
        self.draws: dict[int, int] = dict.fromkeys(mine, 0)
        """How many were drawn for each of these prompts, kept or not."""
        self.empty: dict[int, int] = dict.fromkeys(mine, 0)
        """How many of them had no text."""
        self.attempt = -1
        self.waiting: list[tuple[int, int]] = []
        """(prompt, stream of random numbers) of this attempt."""

    def more(self) -> bool:
        """Whether any rank has something left to draw; begins the next attempt. A collective."""
        while not any_rank(bool(self.waiting)):
            if self.attempt == self.redraws:
                return False
            self.attempt += 1
            self.waiting = [
                (i, i * self.responses + n)
                for i in self.mine
                for n in range(len(self.found[i]), self.responses)
            ]
        return True

    def take(self, count: int) -> list[tuple[int, int]]:
        """The next of this rank's, at most so many; perhaps none."""
        part, self.waiting = self.waiting[:count], self.waiting[count:]
        return part

    def keep(self, prompt: int, response: dict[str, Any]) -> bool:
        """Keeps a response if it is neither empty nor among those kept; says whether it was."""
        self.draws[prompt] += 1
        kept = self.found[prompt]
        if not response["text"]:
            self.empty[prompt] += 1
            return False
        if any(k["text"] == response["text"] for k in kept):
            return False
        kept.append(response)
        return True

    def merged(self) -> dict[int, list[dict[str, Any]]]:
        """All ranks' responses, by prompt. A collective."""
        return _of_all_ranks(self.found)

    def tally(self) -> tuple[dict[int, int], dict[int, int]]:
        """By prompt, of all ranks: how many were drawn, how many of them empty. A collective."""
        return _of_all_ranks(self.draws), _of_all_ranks(self.empty)

    def state_dict(self) -> dict[str, Any]:
        """Of all ranks together. A collective."""
        waiting = [pair for part in gather_objects(self.waiting) for pair in part]
        draws, empty = self.tally()
        return {
            "attempt": self.attempt,
            "draws": {str(i): n for i, n in draws.items()},
            "empty": {str(i): n for i, n in empty.items()},
            "found": {str(i): found for i, found in self.merged().items()},
            "waiting": [list(pair) for pair in waiting],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """This rank's share of what `state_dict` gave.

        Raises:
            UserError: it is of an older version, which counted no draws by prompt.
        """
        if "draws" not in state:
            raise UserError(
                "this sampling was begun by an older version, whose checkpoints do not say how "
                "often each prompt was drawn; go on with that version, or start over: "
                f"{how_to_start_over('sample')}"
            )
        self.attempt = state["attempt"]
        self.draws, self.empty, self.found = (
            {i: state[name][str(i)] for i in self.mine} for name in ("draws", "empty", "found")
        )
        left = {tuple(pair) for pair in state["waiting"]}
        self.waiting = [
            (i, i * self.responses + n)
            for i in self.mine
            for n in range(self.responses)
            if (i, i * self.responses + n) in left
        ]


def _of_all_ranks(by_prompt: dict[int, Value]) -> dict[int, Value]:
    """Where two ranks have the same prompt, they have the same of it. A collective."""
    return {i: value for part in gather_objects(by_prompt) for i, value in part.items()}
