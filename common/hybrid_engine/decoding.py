"""The decoding loop's state: rows at work, rows that wait, and what all have said so far."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from common.config.arguments import SamplingArguments
from common.hybrid_engine.cache import RowCache
from common.hybrid_engine.draws import uniform_draws
from common.hybrid_engine.graphs import Recorder, StepGraphs
from common.hybrid_engine.sampling import choose_tokens
from common.models.attention import decoding_masks
from common.models.logprobs import position_ids
from common.training.padding import left_pad

ROW_STEPS, WIDTH_STEP = 8, 64
"""Recorded steps come in sizes: eighths of the places, and widths of whole multiples of this."""


class DecodingLoop:
    """Rows come in with their prompts, say a token at each step, and leave when they have ended.

    The host knows everything about the rows but what they said and whether that ended them; it
    asks for it in `drop_ended` only. What the device works on stays where it is in memory, so that
    a step may be recorded and played again (see `StepGraphs`).
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        streams: np.ndarray,
        *,
        eos_id: int,
        max_new_tokens: int,
        sampling: SamplingArguments,
        seed: int,
        greedy: bool,
        most_steps: int,
        record: Recorder | None = None,
        stop: Callable[[Sequence[int]], bool] | None = None,
    ) -> None:
        """Args: see `common.hybrid_engine.generation.sample_responses`.

        most_steps: the largest `count` of `advance`.
        record: records steps; without it each is launched anew.
        """
        self.model = model
        self.prompts = [tuple(p) for p in prompts]
        self.streams = streams
        self.eos_id = eos_id
        self.limit = max_new_tokens
        self.sampling = sampling
        self.seed = seed
        self.greedy = greedy
        self.stop = stop
        self.most = np.full(len(prompts), max_new_tokens)
        """`[prompts]`: how many tokens of each response count, where `stop` has not ended it."""
        self.lengths = np.array([len(p) for p in self.prompts])
        self.slots = min(sampling.generation_batch_size, len(prompts))
        self.device = next(model.parameters()).device
        self.cache = RowCache(
            self.slots, int(self.lengths.max()) + max_new_tokens, device=self.device
        )
        self.graphs = StepGraphs(record) if record else None
        self.waiting = sorted(  # taken from the end
            range(len(prompts)), key=lambda i: (-self.lengths[i], self.prompts[i], -i)
        )
        self.held = np.zeros(0, dtype=np.int64)
        """`[rows]`: which prompts are being answered."""
        self._steps = np.zeros(0, dtype=np.int64)
        """`[rows]`: tokens that each has said."""
        # One row more, for places that no row holds; one column more, for what rows say between
        # their limit and the next look.
        shape = (len(prompts) + 1, max_new_tokens + 1)
        integers = {"dtype": torch.long, "device": self.device}
        self._tokens = torch.zeros(shape, **integers)
        self._logprobs = torch.zeros(shape, device=self.device)
        # Of each place: the prompt's number, tokens said, and the column of the last one.
        self._places = torch.zeros(3, self.slots, **integers)
        self._ends = torch.tensor([[max_new_tokens], [self.cache.capacity - 1]], **integers)
        self._last = torch.zeros(self.slots, **integers)
        self._open = torch.zeros(self.slots, dtype=torch.bool, device=self.device)
        shape = (self.slots, most_steps)
        self._drawn = torch.zeros(shape, dtype=torch.float64, device=self.device)
        self._turn = torch.zeros(1, **integers)
        self._seen: Tensor | None = None

    @property
    def tokens(self) -> Tensor:
        """`[prompts, max_new_tokens]` int64; anything stands behind an end token."""
        return self._tokens[:-1, : self.limit]

    @property
    def logprobs(self) -> Tensor:
        """`[prompts, max_new_tokens]` float32."""
        return self._logprobs[:-1, : self.limit]

    def close(self) -> None:
        """Lets go of the cache and of what was recorded; they are parts of reference cycles."""
        self.cache.layers.clear()
        self.graphs = None

    def longest_rest(self) -> int:
        """Tokens that the youngest row may still say."""
        return self.limit - int(self._steps.min())

    def drop_ended(self) -> None:
        """Ended rows leave, and rows from behind take their places."""
        rows = len(self.held)
        if rows == 0:
            return
        works = self._open[:rows].cpu().numpy() & (self._steps < self.limit)
        if self.stop:
            said = self._tokens[self._tensor(self.held), : int(self._steps.max())].tolist()
            for place in np.flatnonzero(works):
                if self.stop(said[place][: self._steps[place]]):
                    works[place] = False
                    self.most[self.held[place]] = self._steps[place]
        kept = int(works.sum())
        if kept == rows:
            return
        holes = np.flatnonzero(~works[:kept])
        movers = kept + np.flatnonzero(works[kept:])
        if len(holes):
            self.cache.move(self._tensor(movers), self._tensor(holes), self._width())
        order = np.arange(kept)
        order[holes] = movers
        self.held, self._steps = self.held[order], self._steps[order]
        places = self._tensor(order)
        for state in (self._last, self._open, self._seen):
            if state is not None:
                state[:kept] = state[places]

    def next_rows(self) -> list[int]:
        """Takes from the waiting rows those that there is room for.

        A few free places are left free: encoding one prompt costs a step of all rows.
        """
        room = self.slots - len(self.held)
        if len(self.held) and room < max(1, self.slots // 8):
            return []
        return [self.waiting.pop() for _ in range(min(room, len(self.waiting)))]

    def admit(self, rows: Sequence[int]) -> None:
        """Encodes the prompts of these rows, each once, and draws their first tokens.

        Without rows, runs a forward all the same, for the sake of the other ranks.
        """
        distinct = list(dict.fromkeys(self.prompts[row] for row in rows)) or [self.prompts[0]]
        number = {prompt: i for i, prompt in enumerate(distinct)}
        ids, mask = (x.to(self.device) for x in left_pad(distinct, 0))
        encoded = DynamicCache()
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids(mask),
            past_key_values=encoded,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if not rows:
            return
        place = self._tensor(np.array([number[self.prompts[row]] for row in rows]))
        pads = [ids.shape[1] - len(prompt) for prompt in distinct]
        before = len(self.held)
        self.cache.add(encoded, pads, place, held=before)
        self.held = np.concatenate([self.held, rows])
        self._steps = np.concatenate([self._steps, np.zeros(len(rows), dtype=np.int64)])
        new = slice(before, len(self.held))
        logits = logits[place]
        self._open[new] = True
        if self.sampling.repetition_penalty != 1.0:
            if self._seen is None:
                shape = (self.slots, logits.shape[-1])
                self._seen = torch.zeros(shape, dtype=torch.bool, device=self.device)
            self._seen[new] = tokens_seen(ids, mask, logits.shape[-1])[place]
        self._load(new, 1)
        self._say(logits, new)
        self._steps[new] += 1

    def advance(self, count: int) -> None:
        """`count` more tokens for every row; without rows, as many forwards all the same."""
        rows = len(self.held)
        self._load(slice(0, rows), count)
        if self.graphs and rows:
            self._places[:, rows:] = self._nobody()
            rows = rounded(rows, max(1, self.slots // ROW_STEPS), self.slots)
            width = rounded(self._width() + count - 1, WIDTH_STEP, self.cache.capacity)
            for _ in range(count):
                self.graphs.run(rows, width, lambda: self._step(rows, width))
            self._steps += count
            return
        for _ in range(count):
            # Without rows the forward writes to a place that nobody holds.
            self._step(max(rows, 1), self._width())
            self._steps += 1

    def _step(self, rows: int, width: int) -> None:
        """One more token for the first `rows` places, which attend to `width` columns at most."""
        columns, tokens = self._places[2, :rows], self._last[:rows]
        self.cache.write_at(columns, width)
        logits = self.model(
            input_ids=tokens.unsqueeze(1),
            attention_mask=decoding_masks(self.model.config, columns, width),
            position_ids=columns.unsqueeze(1),
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self._say(logits, slice(0, rows))
        # What a row says beyond its limit goes to the one column more, and a last column of the
        # cache.
        torch.minimum(self._places[1:] + 1, self._ends, out=self._places[1:])

    def _say(self, logits: Tensor, rows: slice) -> None:
        """Chooses the next token of some places, and writes it down.

        Args:
            logits: `[rows, vocabulary]`.
        """
        numbers, steps = self._places[0, rows], self._places[1, rows]
        least = self.sampling.min_response_tokens
        choice = choose_tokens(
            logits,
            self.sampling,
            None if self.greedy else self._drawn[rows].index_select(1, self._turn).squeeze(1),
            seen=None if self._seen is None else self._seen[rows],
            barred=steps < least if least > 0 else None,
            eos_id=self.eos_id,
        )
        self._turn += 1
        self._tokens[numbers, steps] = choice.tokens
        self._logprobs[numbers, steps] = choice.logprobs
        self._last[rows] = choice.tokens
        self._open[rows] &= choice.tokens != self.eos_id
        if self._seen is not None:
            self._seen[rows] = self._seen[rows].scatter(1, choice.tokens.unsqueeze(1), True)

    def _load(self, rows: slice, count: int) -> None:
        """Tells the device where rows stand, and gives them their next `count` draws."""
        self._turn.zero_()
        held, steps = self.held[rows], self._steps[rows]
        if len(held) == 0:
            self._places[:, :1] = self._nobody()
            return
        self._places[:, rows] = self._tensor(np.stack([held, steps, self._columns()[rows]]))
        if not self.greedy:
            drawn = uniform_draws(self.seed, self.streams[held], steps, count)
            self._drawn[rows, :count] = torch.from_numpy(drawn).to(self.device)

    def _nobody(self) -> Tensor:
        """State of a place that no row holds, `[3, 1]`: what it says goes to the one row more."""
        return self._tensor(np.array([[len(self.prompts)], [0], [0]]))

    def _columns(self) -> np.ndarray:
        """Where each held row's last token goes; it is not in the cache yet."""
        columns = self.lengths[self.held] + self._steps - 1
        return np.clip(columns, 0, self.cache.capacity - 1)

    def _width(self) -> int:
        """Columns in use, those of the last tokens included."""
        return int(self._columns().max(initial=0)) + 1

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, device=self.device)  # a copy: the host counts on


def rounded(value: int, step: int, most: int) -> int:
    """`value` up to the next multiple of `step`, but not above `most`."""
    return min(-(-value // step) * step, most)


def tokens_seen(ids: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """Which tokens stand in each row, `[rows, vocabulary]` bool; padding does not count."""
    seen = ids.new_zeros(len(ids), vocabulary + 1, dtype=torch.bool)
    return seen.scatter(1, ids.masked_fill(~mask, vocabulary), True)[:, :-1]
