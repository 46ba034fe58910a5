"""Numbers of chance: SplitMix64 as published, and the exponential distribution."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.engines.torch_model.chance import Chance, exponential

# Of seed 1234567, as other implementations of SplitMix64 give them.
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_keys_are_those_of_splitmix64() -> None:
    chance = Chance(1234567)
    assert [chance.key() % 2**64 for _ in PUBLISHED] == PUBLISHED


@given(key=st.integers(-(2**63), 2**63 - 1), ids=st.lists(st.integers(0, 2**18), min_size=1))
def test_numbers_are_those_of_the_same_stream(key: int, ids: list[int]) -> None:
    """The number of an id is made of that key and that id alone, in doubles up to rounding."""
    expected = []
    for n in ids:
        word = Chance((key + (n - 1) * 0x9E3779B97F4A7C15) % 2**64).key() % 2**63
        expected.append(-math.log1p(-min(max(word / 2**63, 2**-63), 1 - 2**-24)))
    got = exponential(torch.tensor([[key]]), torch.tensor(ids))
    assert got.shape == (1, len(ids))
    # Where the uniform number is nearly 1, its last bit is much of what is left.
    assert got[0].tolist() == pytest.approx(expected, rel=1e-5, abs=2e-7 * math.exp(8))


def test_numbers_depend_on_key_and_id_alone() -> None:
    keys = torch.tensor([[Chance(seed).key()] for seed in range(4)])
    whole = exponential(keys, torch.arange(1000))
    some = torch.tensor([[7, 3, 999], [0, 1, 2], [5, 5, 5], [998, 2, 4]])
    assert torch.equal(exponential(keys, some), whole.gather(1, some))
    assert torch.equal(exponential(keys[2:3], some[2:3]), whole.gather(1, some)[2:3])


def test_numbers_are_exponential() -> None:
    """Their distribution function is even: 100 classes, and a chi-square of 99 degrees."""
    keys = torch.tensor([[Chance(seed).key()] for seed in range(20)])
    numbers = exponential(keys, torch.arange(50_000)).double()
    assert float(numbers.mean()) == pytest.approx(1, abs=0.005)
    classes = (-torch.expm1(-numbers)).mul(100).long().flatten().bincount(minlength=100)
    assert len(classes) == 100
    expected = numbers.numel() / 100
    assert float(((classes - expected) ** 2 / expected).sum()) < 161  # once in 10,000 times
    assert bool((numbers > 0).all())
    assert bool(numbers.isfinite().all())


def test_without_a_seed_each_is_its_own() -> None:
    assert Chance(None).key() != Chance(None).key()


@pytest.mark.parametrize("other", [1, -1, 2**32, 2**62, -(2**63)])
def test_all_bits_of_a_seed_count(other: int) -> None:
    assert Chance(0).key() != Chance(other).key()
