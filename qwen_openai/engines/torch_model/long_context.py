"""Qwen-1 beyond the length it was trained on: dynamic NTK rotation and log-n attention.

Both are of one request, never of the model object: the rules are set around a forward pass and read
by hooks on the modules that they change. Only a Qwen-1 with a context beyond its `seq_length` gets
the hooks.

The rules, with L = seq_length, n = tokens of the whole prompt and d = size of a head. A prompt
longer than L turns the rotary base into base * alpha^(d / (d - 2)), with
alpha = 2^(ceil(log2(n / L)) + 1) - 1, and keeps it until the answer ends. The query at the p-th
token (from 1 on) is multiplied by log(p) / log(L) where p > L.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from qwen_openai.models.checkpoint import Qwen1Facts

_QUERY_PROJECTION = ".self_attn.q_proj"


class Spread:
    """A small tensor that all layers need, copied once to each device and type that asks for it:
    a copy to a card waits for all that the card still has to do."""

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values
        self._copies: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    def at(self, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return the tensor there."""
        copy = self._copies.get((device, dtype))
        if copy is None:
            copy = self._copies[device, dtype] = self._values.to(device, dtype)
        return copy


@dataclass(frozen=True, slots=True)
class _Pass:
    """What holds during one forward pass. None: as in a short context."""

    frequencies: Spread | None
    scales: Spread | None


_PASS: ContextVar[_Pass | None] = ContextVar("qwen1_long_context", default=None)


class LongContext:
    """The rules of one model, and the hooks that apply them. Safe for several threads at once."""

    def __init__(self, model: PreTrainedModel, facts: Qwen1Facts) -> None:
        """Install the hooks in ``model``, a Qwen2ForCausalLM with a Qwen-1's weights."""
        self._facts = facts
        config = model.config
        self._base = float(config.rope_parameters["rope_theta"])
        width = int(config.hidden_size) // int(config.num_attention_heads)
        self._size = int(getattr(config, "head_dim", None) or width)
        for name, module in model.named_modules():
            if name.endswith("rotary_emb"):
                module.register_forward_hook(_rotate)
            elif name.endswith(_QUERY_PROJECTION):
                module.register_forward_hook(_scale)

    def frequencies(self, prompt_tokens: int) -> Spread | None:
        """Return the rotary frequencies of an answer to a prompt; None for the model's own."""
        ratio = prompt_tokens / self._facts.seq_length
        if not self._facts.use_dynamic_ntk or ratio <= 1:
            return None
        alpha = 2 ** (math.ceil(math.log2(ratio)) + 1) - 1
        base = self._base * alpha ** (self._size / (self._size - 2))
        exponents = torch.arange(0, self._size, 2).float() / self._size
        return Spread(torch.pow(base, exponents).reciprocal())

    @contextmanager
    def during(self, frequencies: Spread | None, start: int, count: int) -> Iterator[None]:
        """Set the rules for a forward pass of ``count`` tokens behind ``start`` others."""
        token = _PASS.set(_Pass(frequencies, self._scales(start, count)))
        try:
            yield
        finally:
            _PASS.reset(token)

    def _scales(self, start: int, count: int) -> Spread | None:
        """Return a factor for each token's query, in a column; None where all are 1."""
        length = self._facts.seq_length
        if not self._facts.use_logn_attn or start + count <= length:
            return None
        places = range(start + 1, start + count + 1)
        return Spread(torch.tensor([[math.log(max(place, length), length)] for place in places]))


def _rotate(
    module: nn.Module,
    args: tuple[torch.Tensor, torch.Tensor],
    output: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A hook: the cosines and sines of other frequencies, shaped as the module's own."""
    rules = _PASS.get()
    if rules is None or rules.frequencies is None:
        return None
    hidden, positions = args
    angles = positions[..., None].float() * rules.frequencies.at(positions.device)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype)


def _scale(
    module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor
) -> torch.Tensor | None:
    """A hook: queries before their rotation, which a factor passes through unchanged."""
    rules = _PASS.get()
    if rules is None or rules.scales is None:
        return None
    return output * rules.scales.at(output.device, output.dtype)
