"""The decoding loop's state: rows at work, rows that wait, and what all have said so far."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from common.config.arguments import SamplingArguments
from common.hybrid_engine.cache import RowCache
from common.hybrid_engine.draws import uniform_draws
from common.hybrid_engine.sampling import choose_tokens
from common.models.attention import decoding_masks
from common.models.logprobs import position_ids
from common.training.distributed import device
from common.training.padding import left_pad


class DecodingLoop:
    """Rows come in with their prompts, say a token at each step, and leave when they have ended.

    The host knows everything about the rows but what they said and whether that ended them; it
    asks for it in `drop_ended` only.
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
    ) -> None:
        """Args: see `common.hybrid_engine.generation.sample_responses`."""
        self.model = model
        self.prompts = [tuple(p) for p in prompts]
        self.streams = streams
        self.eos_id = eos_id
        self.limit = max_new_tokens
        self.sampling = sampling
        self.seed = seed
        self.greedy = greedy
        self.lengths = np.array([len(p) for p in self.prompts])
        self.slots = min(sampling.generation_batch_size, len(prompts))
        self.cache = RowCache(self.slots, int(self.lengths.max()) + max_new_tokens)
        self.waiting = sorted(  # taken from the end
            range(len(prompts)), key=lambda i: (-self.lengths[i], self.prompts[i], -i)
        )
        # One column more, for what rows say between their limit and the next look.
        shape = (len(prompts), max_new_tokens + 1)
        self._tokens = torch.zeros(shape, dtype=torch.long, device=device())
        self._logprobs = torch.zeros(shape, device=device())
        self.held = np.zeros(0, dtype=np.int64)
        """`[rows]`: which prompts are being answered."""
        self._steps = np.zeros(0, dtype=np.int64)
        self._last = torch.zeros(0, dtype=torch.long, device=device())
        self._open = torch.zeros(0, dtype=torch.bool, device=device())
        self._seen: Tensor | None = None

    @property
    def tokens(self) -> Tensor:
        """`[prompts, max_new_tokens]` int64; anything stands behind an end token."""
        return self._tokens[:, : self.limit]

    @property
    def logprobs(self) -> Tensor:
        """`[prompts, max_new_tokens]` float32."""
        return self._logprobs[:, : self.limit]

    def longest_rest(self) -> int:
        """Tokens that the youngest row may still say."""
        return self.limit - int(self._steps.min())

    def drop_ended(self) -> None:
        """Ended rows leave, and rows from behind take their places."""
        if len(self.held) == 0:
            return
        works = self._open.cpu().numpy() & (self._steps < self.limit)
        kept = int(works.sum())
        if kept == len(works):
            return
        holes = np.flatnonzero(~works[:kept])
        movers = kept + np.flatnonzero(works[kept:])
        if len(holes):
            self.cache.move(_tensor(movers), _tensor(holes), self._width())
        order = np.arange(kept)
        order[holes] = movers
        self.held, self._steps = self.held[order], self._steps[order]
        places = _tensor(order)
        self._last, self._open = self._last[places], self._open[places]
        if self._seen is not None:
            self._seen = self._seen[places]

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
        ids, mask = (x.to(device()) for x in left_pad(distinct, 0))
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
        place = _tensor(np.array([number[self.prompts[row]] for row in rows]))
        pads = [ids.shape[1] - len(prompt) for prompt in distinct]
        self.cache.add(encoded, pads, place, held=len(self.held))
        logits = logits[place]
        if self.sampling.repetition_penalty != 1.0:
            new = tokens_seen(ids, mask, logits.shape[-1])[place]
            self._seen = new if self._seen is None else torch.cat([self._seen, new])

        before = len(self.held)
        self.held = np.concatenate([self.held, rows])
        self._steps = np.concatenate([self._steps, np.zeros(len(rows), dtype=np.int64)])
        self._last = torch.cat([self._last, self._last.new_zeros(len(rows))])
        self._open = torch.cat([self._open, self._open.new_ones(len(rows))])
        draws = self._draws(1, before)
        self._say(
            logits, slice(before, None), _tensor(self.held[before:]), torch.zeros_like(place), draws
        )
        self._steps[before:] += 1

    def advance(self, count: int) -> None:
        """`count` more tokens for every row; without rows, as many forwards all the same."""
        if len(self.held) == 0:
            for _ in range(count):
                self._forward(self._last.new_zeros(1), self._last.new_zeros(1), 1)
            return
        draws = self._draws(count)
        numbers, steps, columns = map(_tensor, (self.held, self._steps, self._columns()))
        for step in range(count):
            logits = self._forward(self._last, columns, self._width())
            drawn = None if draws is None else draws[:, step : step + 1]
            self._say(logits, slice(None), numbers, steps, drawn)
            self._steps += 1
            # What a row says beyond its limit goes to the one column more, and a last column of
            # the cache.
            steps = (steps + 1).clamp(max=self.limit)
            columns = (columns + 1).clamp(max=self.cache.capacity - 1)

    def _forward(self, tokens: Tensor, columns: Tensor, width: int) -> Tensor:
        """Logits after one more token a row, `[rows, vocabulary]`."""
        self.cache.write_at(columns, width)
        return self.model(
            input_ids=tokens.unsqueeze(1),
            attention_mask=decoding_masks(self.model.config, columns, width),
            position_ids=columns.unsqueeze(1),
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]

    def _say(
        self, logits: Tensor, rows: slice, numbers: Tensor, steps: Tensor, draws: Tensor | None
    ) -> None:
        """Chooses the next token of some of the held rows, and writes it down.

        Args:
            logits: `[rows, vocabulary]`.
            rows: which of the held rows.
            numbers, steps: `[rows]` int64: their prompts, and how many tokens they have said.
            draws: `[rows, 1]` float64; None takes the likeliest token.
        """
        least = self.sampling.min_response_tokens
        choice = choose_tokens(
            logits,
            self.sampling,
            None if draws is None else draws[:, 0],
            seen=None if self._seen is None else self._seen[rows],
            barred=steps < least if least > 0 else None,
            eos_id=self.eos_id,
        )
        self._tokens[numbers, steps] = choice.tokens
        self._logprobs[numbers, steps] = choice.logprobs
        self._last[rows] = choice.tokens
        self._open[rows] &= choice.tokens != self.eos_id
        if self._seen is not None:
            self._seen[rows] = self._seen[rows].scatter(1, choice.tokens.unsqueeze(1), True)

    def _draws(self, count: int, first: int = 0) -> Tensor | None:
        """`[rows, count]` float64: the next draws of the held rows from `first` on."""
        if self.greedy:
            return None
        drawn = uniform_draws(
            self.seed, self.streams[self.held[first:]], self._steps[first:], count
        )
        return torch.from_numpy(drawn).to(device())

    def _columns(self) -> np.ndarray:
        """Where each held row's last token goes; it is not in the cache yet."""
        columns = self.lengths[self.held] + self._steps - 1
        return np.minimum(columns, self.cache.capacity - 1)

    def _width(self) -> int:
        """Columns in use, those of the last tokens included."""
        return int(self._columns().max()) + 1


def tokens_seen(ids: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """Which tokens stand in each row, `[rows, vocabulary]` bool; padding does not count."""
    seen = ids.new_zeros(len(ids), vocabulary + 1, dtype=torch.bool)
    return seen.scatter(1, ids.masked_fill(~mask, vocabulary), True)[:, :-1]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, device=device())  # a copy: the host counts on
