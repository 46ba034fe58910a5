"""The laws of the choice."""

from collections import Counter
from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.gateway.pool.choosing import choose, excess, load


@dataclass(frozen=True, slots=True)
class One:
    id: int
    in_flight: int
    weight: float = 1.0


SOME = st.lists(st.tuples(st.integers(0, 300), st.floats(0.01, 1000)), min_size=1, max_size=12).map(
    lambda pairs: [One(place, *pair) for place, pair in enumerate(pairs)]
)


@given(SOME, st.integers(0, 99))
def test_without_a_wish_one_of_the_least_loaded_is_taken(free: list[One], seed: int) -> None:
    chosen = choose(free, None, 8, Random(seed))
    assert load(chosen) == min(map(load, free))


@given(SOME, st.integers(0, 11), st.integers(0, 64), st.integers(0, 99))
def test_the_preferred_one_is_taken_up_to_the_gap(
    free: list[One], which: int, gap: int, seed: int
) -> None:
    preferred = free[which % len(free)]
    chosen = choose(free, preferred, gap, Random(seed))
    least = min(map(load, free))
    if excess(preferred, least) <= gap:
        assert chosen is preferred
    else:
        assert load(chosen) == least or len(free) == 1


@given(SOME, st.integers(0, 99))
def test_what_is_not_free_is_never_taken(free: list[One], seed: int) -> None:
    assert choose(free, One(99, 0), 1000, Random(seed)) in free


@given(st.lists(st.integers(1, 8), min_size=1, max_size=5), st.integers(0, 99))
def test_work_is_shared_by_weight(weights: list[int], seed: int) -> None:
    """Jobs that never end are spread as the weights are, but for one each."""
    random = Random(seed)
    counts: Counter[int] = Counter()
    jobs = 20 * sum(weights)
    for _ in range(jobs):
        free = [One(place, counts[place], weight) for place, weight in enumerate(weights)]
        counts[choose(free, None, 8, random).id] += 1
    for place, weight in enumerate(weights):
        assert abs(counts[place] - 20 * weight) <= 1


def test_ties_fall_to_each() -> None:
    random = Random(7)
    free = [One(0, 2), One(1, 2), One(2, 3)]
    counts = Counter(choose(free, None, 0, random).id for _ in range(2000))
    assert counts[2] == 0
    assert min(counts[0], counts[1]) > 800


def test_with_equal_weights_the_gap_counts_jobs() -> None:
    random = Random(1)
    for busier, chosen in ((8, 0), (9, 1)):
        free = [One(0, busier), One(1, 0)]
        assert choose(free, free[0], 8, random).id == chosen
