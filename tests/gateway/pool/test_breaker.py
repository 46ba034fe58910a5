"""The breaker, by a clock of the test's own."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.gateway.pool.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(
    failures: int = 3, longest: float = 5.0, seed: int = 1
) -> tuple[Breaker, Clock, list[str]]:
    clock = Clock()
    breaker = Breaker(failures, longest, clock=clock, random=Random(seed))
    seen: list[str] = []
    breaker.changed = lambda: seen.append(breaker.state)
    return breaker, clock, seen


def state(breaker: Breaker) -> str:
    """Its state, which a type checker would take to stay as it was seen."""
    return breaker.state


def test_so_many_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    breaker, _, seen = make(failures=3)
    for _ in range(5):
        breaker.failed(breaker.begin())
        breaker.failed(breaker.begin())
        breaker.succeeded(breaker.begin())
    assert state(breaker) == "closed"
    assert seen == []
    for _ in range(3):
        breaker.failed(breaker.begin())
    assert (breaker.state, seen) == ("open", ["open"])


def test_one_trial_at_a_time_and_only_after_the_cool_down() -> None:
    breaker, clock, _ = make()
    assert not breaker.try_one()
    breaker.trip()
    assert 0.5 <= breaker.wait <= 1.0
    assert not breaker.try_one()
    clock.now += breaker.wait
    assert breaker.try_one()
    assert state(breaker) == "half-open"
    assert not breaker.try_one()
    breaker.give_up()
    assert breaker.try_one()
    breaker.close()
    assert (breaker.state, breaker.wait) == ("closed", 0.0)


def test_after_a_trial_one_failure_is_enough_until_work_has_succeeded() -> None:
    breaker, clock, _ = make(failures=3)
    breaker.trip()
    clock.now += 5
    assert breaker.try_one()
    breaker.close()
    breaker.failed(breaker.begin())
    assert state(breaker) == "open"
    clock.now += 5
    assert breaker.try_one()
    breaker.close()
    breaker.succeeded(breaker.begin())
    breaker.failed(breaker.begin())
    breaker.failed(breaker.begin())
    assert state(breaker) == "closed"


def test_work_from_before_a_change_counts_for_nothing() -> None:
    breaker, clock, _ = make(failures=1)
    old = breaker.begin()
    breaker.trip()
    until = breaker.wait
    breaker.failed(old)
    breaker.succeeded(old)
    assert (breaker.state, breaker.wait) == ("open", until)
    clock.now += until
    assert breaker.try_one()
    breaker.failed(old)
    assert state(breaker) == "half-open"
    breaker.close()
    breaker.failed(old)
    assert state(breaker) == "closed"


@pytest.mark.parametrize(("longest", "ceilings"), [(5, [1, 2, 4, 5, 5]), (0.2, [0.2, 0.2])])
def test_cool_downs_grow_to_their_longest(longest: float, ceilings: list[float]) -> None:
    breaker, clock, _ = make(longest=longest)
    for ceiling in ceilings:
        breaker.trip()
        assert ceiling / 2 <= breaker.wait <= ceiling
        clock.now += breaker.wait
        assert breaker.try_one()


def test_other_bounds_hold_at_once() -> None:
    breaker, _, _ = make(longest=3600)
    for _ in range(8):
        breaker.trip()
    assert breaker.wait > 10
    breaker.configure(failures=1, longest=2)
    assert breaker.wait <= 2


STEPS = st.lists(
    st.one_of(
        st.sampled_from(["begin", "try", "close", "trip", "give up"]),
        st.tuples(st.sampled_from(["ok", "bad"]), st.integers(0, 5)),
        st.floats(0, 10),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 4), st.floats(0.05, 30), st.integers(0, 9))
def test_whatever_happens_a_trial_comes_in_time_and_alone(
    steps: list[str | tuple[str, int] | float], failures: int, longest: float, seed: int
) -> None:
    breaker, clock, seen = make(failures, longest, seed)
    marks = [breaker.begin()]
    for step in steps:
        before = breaker.state
        if isinstance(step, float):
            clock.now += step
        elif isinstance(step, tuple):
            mark = marks[-1 - step[1] % len(marks)]
            (breaker.succeeded if step[0] == "ok" else breaker.failed)(mark)
            if mark != breaker.begin() or before != "closed":
                assert state(breaker) == before or before == "closed"
        elif step == "try":
            allowed = breaker.try_one()
            assert not allowed or before == "open"
        else:
            act = {"begin": lambda: marks.append(breaker.begin()), "close": breaker.close}
            act |= {"trip": breaker.trip, "give up": breaker.give_up}
            act[step]()
        assert 0 <= breaker.wait <= longest
        if breaker.state == "open":
            clock.now += breaker.wait
            assert breaker.try_one()
            breaker.give_up()
    assert all(state in ("open", "closed", "half-open") for state in seen)
