"""Which tokens come into question at a step and what they weigh: temperature, top_k, top_p, min_p.

All rows of a batch that ask for alike things are done at once, in blocks, so that little memory is
needed. What a row gets depends on that row alone: no other row changes how far its candidates reach
or how their weights are summed. Knows no penalties and no chance.

Definitions are those of transformers' warpers, in `generate`'s order: temperature, top_k, top_p,
min_p. Of equally likely tokens the lower id comes first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from qwen_openai.core import Sampling

# top_k is rounded up to one of few widths: the candidates that are looked at are a matter of the
# request's own k, and requests of different k can share a block.
_NARROW = 64
# The likeliest tokens nearly always hold all of the nucleus; to sort a whole vocabulary takes 12 ms
# on a CPU.
_NUCLEUS = 1024
# How many more are looked at for equals of the last one.
_SLACK = 64
# Values of a block: 128 rows of a Qwen's vocabulary are 5 blocks. A CPU's caches hold a row.
_BLOCK, _BLOCK_ON_CPU = 2**22, 2**19
_LAST_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Candidates:
    """Some rows' candidates: ``weights`` of shape (rows, candidates) are proportional to the
    probabilities, 1 for the likeliest and 0 for what is left out, and no numbers where the row has
    none. ``ids`` are those of the candidates, of the same shape, or one row that holds for all;
    ``index`` is ``rows`` on the device."""

    rows: Sequence[int]
    index: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor


def weigh(logits: torch.Tensor, samplings: Mapping[int, Sampling]) -> Iterator[Candidates]:
    """Yield the candidates of the rows of ``logits`` (float32) that ``samplings`` names, each row
    once, in any order. The logits are left as they are. Temperatures must not be 0."""
    size = logits.shape[1]
    on_cpu = logits.device.type == "cpu"
    alike: dict[_Reach, list[int]] = {}
    for row, sampling in samplings.items():
        alike.setdefault(_reach(sampling, size, on_cpu), []).append(row)
    step = _rows_of_block(logits)
    for reach, rows in alike.items():
        for start in range(0, len(rows), step):
            yield from _weigh_block(logits, rows[start : start + step], samplings, reach)


def likeliest(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ``count`` largest values of each row and their ids, shape (rows, count): the
    largest first, of equals the lower id. ``rows`` is float32."""
    step = _rows_of_block(rows)
    blocks = [_likeliest(rows[n : n + step], count) for n in range(0, len(rows), step)]
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat([values for values, _ in blocks]), torch.cat([ids for _, ids in blocks])


def _likeliest(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    size = rows.shape[1]
    if count >= size:
        values, ids = torch.sort(rows, dim=1, descending=True, stable=True)
        return values, ids
    ranks: torch.Tensor | None = None
    # Where looking costs nothing, most of the row need not be ranked.
    if rows.device.type == "cpu" and count + _SLACK < size:
        near, ids = rows.topk(count + _SLACK)
        if bool((near[:, count - 1] > near[:, -1]).all()):
            ranks = _ranks(near, ids)
    if ranks is None:
        ranks = _ranks(rows, torch.arange(size, device=rows.device))
    ids = _LAST_ID - ranks.topk(count).values.bitwise_and_(_LAST_ID)
    return rows.gather(1, ids), ids


def onto(device: torch.device, values: torch.Tensor) -> torch.Tensor:
    """Bring a host's values to the device, without waiting for what the device still does."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _rows_of_block(rows: torch.Tensor) -> int:
    block = _BLOCK_ON_CPU if rows.device.type == "cpu" else _BLOCK
    return max(1, block // rows.shape[1])


class _Reach(NamedTuple):
    """How many of the likeliest tokens are looked at, 0 for all in no order, and whether a nucleus
    may be larger."""

    width: int
    may_be_short: bool = False


def _reach(sampling: Sampling, size: int, on_cpu: bool) -> _Reach:
    if sampling.top_k > 0:
        rounded = 1 << (min(sampling.top_k, size) - 1).bit_length()
        return _Reach(min(size, max(_NARROW, rounded)))
    if sampling.top_p >= 1:
        return _Reach(0)
    # To look whether they were enough costs a GPU more than to sort.
    return _Reach(_NUCLEUS, True) if on_cpu and size > _NUCLEUS else _Reach(size)


def _weigh_block(
    logits: torch.Tensor, rows: list[int], samplings: Mapping[int, Sampling], reach: _Reach
) -> Iterator[Candidates]:
    device, size = logits.device, logits.shape[1]
    asked = [samplings[row] for row in rows]
    index = onto(device, torch.tensor(rows))
    part = logits if rows == [*range(len(logits))] else logits.index_select(0, index)
    temperature, top_k, top_p, min_p = _columns(asked, device)
    # Unlike a row's first in rank, the largest is no number where any of the row is none.
    top = part.amax(1, keepdim=True)
    values, ids = part, torch.arange(size, device=device)
    if reach.width:
        values, ids = likeliest(part, reach.width)
    weights = _weights(values, top, temperature)
    if any(s.top_k > 0 for s in asked):
        beyond = torch.arange(weights.shape[1], device=device) >= top_k
        weights.masked_fill_(beyond & (top_k > 0), 0)
    if any(s.top_p < 1 for s in asked):
        whole = _weights(part, top, temperature) if reach.may_be_short else weights
        limit = whole.sum(1, keepdim=True, dtype=torch.float64).mul_(top_p)
        is_short = _keep_nucleus(weights, limit, top_p)
        if reach.may_be_short and bool(is_short.any()):
            for short, way in ((True, _Reach(size)), (False, reach)):
                some = [n for n, one in zip(rows, is_short.tolist(), strict=True) if one is short]
                if some:
                    yield from _weigh_block(logits, some, samplings, way)
            return
    if any(s.min_p > 0 for s in asked):
        weights.masked_fill_(weights < min_p.float(), 0)
    yield Candidates(rows, index, ids, weights)


def _columns(samplings: Sequence[Sampling], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Temperatures, top_k, top_p and min_p, each of shape (rows, 1)."""
    values = [[s.temperature, s.top_k, s.top_p, s.min_p] for s in samplings]
    return onto(device, torch.tensor(values, dtype=torch.float64)).unsqueeze(2).unbind(1)


def _keep_nucleus(weights: torch.Tensor, limit: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Take out what is beyond the limit; return for each row whether all together are below it."""
    before = weights.cumsum(1, dtype=torch.float64)
    is_short = before[:, -1] < limit[:, 0]
    # A token stays while those before it hold less than the limit: the first one always.
    before.sub_(weights)
    weights[:, 1:].masked_fill_((before >= limit)[:, 1:] & (top_p < 1), 0)
    return is_short


def _weights(values: torch.Tensor, top: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    return values.sub(top).div_(temperature.float()).exp_()


def _ranks(values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Numbers in the order of ``values``, and of equals in the reverse order of ``ids``."""
    # A float's bits are in its order, those of a negative one after turning them. The two zeros
    # are one.
    bits = (values + 0.0).view(torch.int32)
    bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))
    return bits.long().bitwise_left_shift_(32).add_(_LAST_ID - ids)
