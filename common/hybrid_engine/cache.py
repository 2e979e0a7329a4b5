"""A key–value cache in which every row has a length of its own, and rows come and go."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class RowLayer(DynamicLayer):
    """One layer's keys and values, `[slots, heads, capacity, head width]`, allocated once.

    Token n of a row stands in column n: rows are not aligned, and none has padding. What lies
    behind a row's last token is left over from others, and finite.
    """

    def __init__(self, cache: "RowCache") -> None:
        """Args:
        cache: of all layers; it knows which rows are held and where each writes.
        """
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocates the buffers for states like these, `[rows, heads, tokens, head width]`."""
        size = (self.cache.slots, key_states.shape[1], self.cache.capacity)
        # Zeros, not anything: what a mask hides is still multiplied by 0, and may not be NaN.
        self.keys = key_states.new_zeros(*size, key_states.shape[-1])
        self.values = value_states.new_zeros(*size, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: object,  # noqa: ANN002
        **kwargs: object,  # noqa: ANN003
    ) -> tuple[Tensor, Tensor]:
        """Writes one token a row, and returns the columns that the rows use."""
        rows, columns = self.cache.rows, self.cache.columns
        count, width = len(columns), self.cache.width
        self.keys[rows, :, columns] = key_states[:, :, 0]
        self.values[rows, :, columns] = value_states[:, :, 0]
        return self.keys[:count, :, :width], self.values[:count, :, :width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what attention sees."""
        return self.cache.width, 0

    def get_seq_length(self) -> int:
        """Tokens before the ones that are being added."""
        return self.cache.width - 1


class RowCache(Cache):
    """The layers' buffers, and the bookkeeping that they share."""

    def __init__(self, slots: int, capacity: int, device: torch.device) -> None:
        """Args:
        slots: rows that can be held at a time.
        capacity: tokens that a row can hold, prompt and response together.
        device: where the model is.
        """
        super().__init__(layers=[])
        self.slots = slots
        self.capacity = capacity
        self._numbers = torch.arange(slots, device=device)
        self.rows = self.columns = self._numbers[:0]
        self.width = 0

    def write_at(self, columns: Tensor, width: int) -> None:
        """Says where the next token of each held row goes.

        Args:
            columns: `[rows]` int64.
            width: columns that attention sees; above all of `columns`.
        """
        self.columns = columns
        self.rows = self._numbers[: len(columns)]
        self.width = width

    def add(self, prompts: DynamicCache, pads: Sequence[int], place: Tensor, held: int) -> None:
        """Takes in rows behind those that are held.

        Args:
            prompts: keys and values of left-padded prompts; taken away layer by layer, so that
                two whole caches are not in memory together when this one is first filled.
            pads: columns of padding of each prompt.
            place: `[new]` int64: each new row's prompt.
            held: rows that are held already.
        """
        for number in range(len(prompts.layers)):
            source, prompts.layers[number] = prompts.layers[number], None
            if number == len(self.layers):
                layer = RowLayer(self)
                layer.lazy_initialization(source.keys, source.values)
                self.layers.append(layer)
            target = self.layers[number]
            for buffer, states in ((target.keys, source.keys), (target.values, source.values)):
                moved = _without_padding(states, pads)
                buffer[held : held + len(place), :, : states.shape[2]] = moved[place]

    def move(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Copies rows onto others, in the first `width` columns; both `[moved]` int64."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[targets, :, :width] = buffer[sources, :, :width]


def _without_padding(states: Tensor, pads: Sequence[int]) -> Tensor:
    """Shifts each row to the left by its padding, which comes to stand behind it."""
    if not any(pads):
        return states
    length = states.shape[2]
    columns = torch.arange(length, device=states.device)
    columns = (columns + torch.tensor(pads, device=states.device).unsqueeze(1)) % length
    return states.gather(2, columns[:, None, :, None].expand_as(states))
