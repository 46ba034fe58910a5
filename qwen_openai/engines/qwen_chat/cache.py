"""Keys and values of one answer, in buffers with room to grow.

transformers' own cache copies all of it for every token: as much as reading the weights, in a long
conversation. Here only what is new is written. A buffer begins with room for the whole prompt, and
grows by half, so that those outgrown are few: what they leave is too small for the next.
"""

from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

# Tokens of an answer that there is room for behind the prompt, at first.
_ROOM = 256


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a text may get: ``prompt`` tokens, and ``answer`` tokens at most behind them."""

    prompt: int
    answer: int

    def room(self, held: int, needed: int) -> int:
        """Return for how many tokens a buffer is to be made that replaces one for ``held``."""
        wished = held + held // 2 if held else self.prompt + _ROOM
        return max(needed, min(wished, self.prompt + self.answer))


def new_cache(model: PreTrainedModel, extent: Extent) -> DynamicCache:
    """Return an empty cache for ``model``; layers with a sliding window keep transformers' own."""
    cache = DynamicCache(config=model.config)
    cache.layers = [
        GrowingLayer(extent) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers' own
    """One layer. ``keys`` and ``values`` are views of the filled part: (1, heads, tokens, size)."""

    def __init__(self, extent: Extent) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers' own
        self._extent = extent
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append what is new; return all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        held = 0 if self._buffers is None else self._buffers[0].shape[-2]
        if self._buffers is None or end > held:
            size = self._extent.room(held, end)
            self._buffers = self._larger(start, size, key_states, value_states)
        keys, values = self._buffers
        keys[..., start:end, :] = key_states
        values[..., start:end, :] = value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def _larger(
        self, filled: int, size: int, *new: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (each.new_empty((*each.shape[:-2], size, each.shape[-1])) for each in new)
        if self._buffers is not None:
            keys[..., :filled, :], values[..., :filled, :] = (
                each[..., :filled, :] for each in self._buffers
            )
        return keys, values
