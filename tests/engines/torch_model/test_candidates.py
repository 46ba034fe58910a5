"""Ranking, with many equals, and the two ways to a nucleus."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_openai.core import Sampling
from qwen_openai.engines.torch_model.candidates import likeliest, weigh

_VALUES = st.sampled_from([-math.inf, -1e9, -2.5, -0.0, 0.0, 1e-40, 0.125, 7.0, 3e38, math.inf])


@settings(deadline=None)
@given(
    values=st.lists(_VALUES, min_size=1, max_size=12),
    repeats=st.sampled_from([1, 10, 60]),
    count=st.sampled_from([1, 2, 5, 64, 200]),
)
def test_the_likeliest_with_equals_by_id(values: list[float], repeats: int, count: int) -> None:
    """Whether the equals of the last one end near by, or go on to the end of the row."""
    row = torch.tensor(values * repeats).tolist()
    order = sorted(range(len(row)), key=lambda n: -row[n])[:count]
    found, ids = likeliest(torch.tensor([row, [*reversed(row)]]), count)
    assert ids[0].tolist() == order
    assert found[0].tolist() == [row[n] for n in order]


def test_many_rows_are_ranked_like_one() -> None:
    rows = torch.randn(40, 20_000, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    values, ids = likeliest(rows, 100)
    for n, row in enumerate(rows):
        alone, names = likeliest(row[None], 100)
        assert torch.equal(values[n], alone[0])
        assert torch.equal(ids[n], names[0])


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_a_nucleus_beyond_the_likeliest(top_p: float) -> None:
    """Rows whose nucleus is small, and rows whose nucleus is most of the vocabulary."""
    size = 5000
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(4, size, generator=generator) * torch.tensor([[0.1], [6.0], [1.0], [0.0]])
    wishes = {n: Sampling(top_p=top_p) for n in range(4)}
    seen: dict[int, dict[int, float]] = {}
    for some in weigh(rows, wishes):
        for n, ids, weights in zip(
            some.rows, some.ids.tolist(), some.weights.tolist(), strict=True
        ):
            assert n not in seen
            seen[n] = {name: weight for name, weight in zip(ids, weights, strict=True) if weight}
    assert len(seen) == 4
    for n, row in enumerate(rows.double().softmax(1)):
        # The smallest number of tokens that hold so much.
        sums = row.sort(descending=True).values.cumsum(0)
        assert len(seen[n]) == pytest.approx(int((sums < top_p).sum()) + 1, abs=1)
    assert len(seen[3]) > 1024 or top_p == 0.3
