"""A key–value cache that is written in place and can be cut down to the rows still at work."""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """One layer's keys and values in buffers of a fixed length, of which a view is handed out.

    Transformers' own dynamic layer copies everything it holds at every token; its static layer
    makes attention run over the whole buffer.
    """

    def __init__(self, capacity: int) -> None:
        """Args:
        capacity: tokens that a row can hold.
        """
        super().__init__()
        self.capacity = capacity
        self._buffers: tuple[Tensor, Tensor]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocates the buffers, `[rows, heads, capacity, head width]`."""
        self._buffers = _allocate(key_states, self.capacity), _allocate(value_states, self.capacity)
        self.keys, self.values = (buffer[:, :, :0] for buffer in self._buffers)
        self.is_initialized = True

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: object,  # noqa: ANN002
        **kwargs: object,  # noqa: ANN003
    ) -> tuple[Tensor, Tensor]:
        """Appends `[rows, heads, new, head width]`, and returns all that is held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order; a row may come up several times."""
        length = self.keys.shape[2]
        kept = []
        for held in (self.keys, self.values):
            chosen = held.index_select(0, rows)
            buffer = _allocate(chosen, self.capacity)
            buffer[:, :, :length] = chosen
            kept.append(buffer)
        self._buffers = kept[0], kept[1]
        self.keys, self.values = (buffer[:, :, :length] for buffer in kept)


class PreallocatedCache(Cache):
    """A cache of `PreallocatedLayer`s, which come into being as the model asks for them."""

    def __init__(self, capacity: int) -> None:
        """Args:
        capacity: tokens that a row can hold, prompt and response together.
        """
        new_layer: Callable[[], PreallocatedLayer] = partial(PreallocatedLayer, capacity)
        super().__init__(layer_class_to_replicate=new_layer)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows of every layer, in this order; `[kept]` int64."""
        for layer in self.layers:
            layer.select(rows)


def _allocate(like: Tensor, capacity: int) -> Tensor:
    rows, heads, _, width = like.shape
    return like.new_empty(rows, heads, capacity, width)
