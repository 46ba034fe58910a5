"""Attention on a CPU in which each answer of a step looks at its own keys only.

transformers lays the keys of all answers of a step behind each other, copies them for each head
that shares them, and has every query look at all of them under one mask: work that grows with the
square of the number of answers. Here each answer is taken by itself, by torch's own attention.
What the cache holds and what the mask says stays transformers' own; `loop` puts this to use.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "qwen_openai_own_keys"
_BASE = "sdpa"


def use_own_keys(model: PreTrainedModel) -> None:
    """Have ``model`` attend so from its next pass on, where it is on the CPU and attends by torch's
    attention; another model stays as it is.

    transformers' batching decides by the name of the attention, when it is built, whether to make
    masks, and takes only names that it knows: build it first.
    """
    if model.device.type != "cpu" or model.config._attn_implementation != _BASE:
        return
    # One table for all models, in which a name is only looked up; entered twice it is the same.
    AttentionInterface.register(NAME, attend)
    # Passes that do not come from the batching, such as `generate`, make their masks by this.
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def leave_own_keys(model: PreTrainedModel) -> None:
    """Undo `use_own_keys`, if it did anything; harmless while the model is at work."""
    if model.config._attn_implementation == NAME:
        model.set_attn_implementation(_BASE)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **given: Any,  # noqa: ANN401  # as transformers calls it
) -> tuple[torch.Tensor, None]:
    """Attention as transformers' `sdpa_attention_forward` gives it, within rounding.

    ``query`` is (1, heads, queries, head), ``key`` and ``value`` (1, sharing heads, queries, head)
    of the tokens that are new; the result is (1, queries, heads, head). ``attention_mask``, which
    is added to the scores, is (1, 1, queries, keys) of all answers. A pass without a cache of the
    batching's is left to transformers.
    """
    cache = given.get("cache")
    if not isinstance(cache, PagedAttentionCache) or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    layer: Any = module
    # Also chooses, of the lengths given, those for layers of this kind.
    key, value = cache.update(key, value, layer.layer_idx, given)
    # The rows of whatever fills a step up stay 0.
    made = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])
    rows = pairwise(given["cu_seq_lens_q"].tolist())
    columns = pairwise(given["cu_seq_lens_k"].tolist())
    for (row, row_end), (column, column_end) in zip(rows, columns, strict=True):
        if row == row_end:
            continue
        own, seen = slice(row, row_end), slice(column, column_end)
        made[:, own] = _attend_alone(
            query[:, :, own],
            key[:, :, seen],
            value[:, :, seen],
            attention_mask[..., own, seen],
            given.get("scaling"),
        )
    return made, None


def _attend_alone(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """The attention of one answer, (1, queries, heads, head)."""
    _, heads, count, width = query.shape
    sharing = key.shape[1]
    if count > 1:
        grouped = heads != sharing
        made = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=grouped
        )
        return made.transpose(1, 2)
    # The newest token sees all that its answer's layer keeps. The heads that share keys stand as
    # so many queries of one head: half the time.
    together = query.reshape(1, sharing, heads // sharing, width)
    made = scaled_dot_product_attention(together, key, value, scale=scaling)
    return made.reshape(1, 1, heads, -1)
