"""What is taken, refused and given back: minutes, days, months, requests at once, restarts."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.errors import ApiError, Overloaded, QuotaExceeded, RateLimited
from qwen_openai.gateway.keys import Key, KeyLimits
from qwen_openai.gateway.limits import Limiter, Reservation

# 12:00 UTC on the last day of a month.
NOON = 1_793_448_000.0


@dataclass
class Clocks:
    """Both clocks of a limiter; sixteenths and the like are exact in binary."""

    monotonic: float = 1000.0
    wall: float = NOON
    limiter: Limiter = field(init=False)

    def limit(self, **total: int) -> Limiter:
        self.limiter = Limiter(
            KeyLimits(**total), clock=lambda: self.monotonic, wall=lambda: self.wall
        )
        return self.limiter

    def pass_(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds


def key(id: str = "k", **limits: int) -> Key:
    return Key(id=id, name=id, limits=KeyLimits(**limits))


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def refused(limiter: Limiter, whose: Key, tokens: int = 1) -> ApiError:
    with pytest.raises(ApiError) as caught:
        limiter.reserve(whose, tokens)
    return caught.value


GAPS = st.one_of(
    st.sampled_from([0.0, 1 / 64, 1 / 16, 30.0, 60.0, 59.984375, 60.015625]),
    st.integers(0, 64 * 61).map(lambda parts: parts / 64),
)


@given(
    steps=st.lists(st.tuples(GAPS, st.integers(0, 12)), max_size=60),
    requests=st.integers(1, 8),
    tokens=st.integers(12, 40),
)
def test_never_more_than_the_limit_in_any_minute(
    steps: list[tuple[float, int]], requests: int, tokens: int
) -> None:
    """Whatever comes when, and whatever waits as long as it is told, is let in then."""
    clocks = Clocks()
    limiter = clocks.limit()
    whose = key(requests_per_minute=requests, tokens_per_minute=tokens)
    taken: list[tuple[float, int]] = []
    for gap, size in steps:
        clocks.pass_(gap)
        try:
            limiter.reserve(whose, size).settle(size)
        except RateLimited as error:
            # It would have been too much, but for those at most a sixteenth of a second too old.
            around = [each for each in taken if each[0] > clocks.monotonic - 60.0625]
            assert len(around) >= requests or sum(n for _, n in around) + size > tokens
            clocks.pass_(error.retry_after)
            limiter.reserve(whose, size).settle(size)
        taken.append((clocks.monotonic, size))
        minute = [n for at, n in taken if at > clocks.monotonic - 60]
        assert len(minute) <= requests
        assert sum(minute) <= tokens


def test_a_burst_at_a_windows_edge_gets_no_second_helping(clocks: Clocks) -> None:
    limiter = clocks.limit()
    whose = key(requests_per_minute=5)
    clocks.pass_(59.75)
    for _ in range(5):
        limiter.reserve(whose, 1)
    clocks.pass_(0.5)
    error = refused(limiter, whose)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 59.5
    clocks.pass_(59.5)
    for _ in range(5):
        limiter.reserve(whose, 1)
    refused(limiter, whose)


def test_a_minute_of_a_hundred_thousand_requests_stays_small(clocks: Clocks) -> None:
    limiter = clocks.limit()
    whose = key(requests_per_minute=100_000)
    for _ in range(100_000):
        clocks.pass_(60 / 100_000)
        limiter.reserve(whose, 10).settle(5)
    assert limiter.kept < 1000
    assert limiter.headers(whose)["x-ratelimit-remaining-requests"] == "0"


def test_idle_keys_keep_no_minutes(clocks: Clocks) -> None:
    limiter = clocks.limit()
    for number in range(200):
        limiter.reserve(key(f"k{number}"), 1).settle(1)
    assert limiter.kept == 200
    clocks.pass_(60)
    limiter.reserve(key("other"), 1)
    assert limiter.kept == 1


ROUNDS = st.tuples(st.integers(0, 100), st.sampled_from(["requests", "parallel", "tokens", "day"]))


@given(round=ROUNDS, of_all=st.booleans())
def test_a_hundred_at_once_with_k_left_let_in_exactly_k(
    round: tuple[int, str], of_all: bool
) -> None:
    left, kind = round
    limits = {
        "requests": {"requests_per_minute": 100},
        "parallel": {"parallel_requests": 100},
        "tokens": {"tokens_per_minute": 700},
        "day": {"tokens_per_day": 700},
    }[kind]
    clocks = Clocks()
    limiter = clocks.limit(**limits) if of_all else clocks.limit()
    whose = Key(id="k", name="k", limits=KeyLimits() if of_all else KeyLimits(**limits))
    held = [limiter.reserve(whose, 7) for _ in range(100 - left)]

    async def one(number: int) -> bool:
        await asyncio.sleep(0)
        try:
            held.append(limiter.reserve(key(f"k{number}") if of_all else whose, 7))
        except (RateLimited, Overloaded):
            return False
        return True

    async def crowd() -> int:
        return sum(await asyncio.gather(*(one(number) for number in range(100))))

    assert asyncio.run(crowd()) == left
    assert len(held) == 100


@given(
    before=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 50)), max_size=20),
    limit=st.integers(1, 20),
)
def test_a_restart_forgets_nothing(before: list[tuple[int, int]], limit: int) -> None:
    clocks = Clocks(monotonic=5.0)
    limiter = clocks.limit()
    limiter.restore(
        [("k", NOON - ago, tokens) for ago, tokens in before],
        {"k": (300, 800), "other": (1, 2)},
    )
    minute = [tokens for ago, tokens in before if ago < 60]
    whose = key(requests_per_minute=limit, tokens_per_day=1000, tokens_per_month=1000)
    room = max(limit - len(minute), 0)
    for _ in range(room):
        limiter.reserve(whose, 0)
    refused(limiter, whose, 0)
    budget = key(tokens_per_month=1000)
    limiter.reserve(budget, 200)
    assert isinstance(refused(limiter, budget, 1), QuotaExceeded)
    told = limiter.headers(key(tokens_per_minute=10_000))
    assert told["x-ratelimit-remaining-tokens"] == str(10_000 - sum(minute) - 200)


def test_what_was_restored_ages_on(clocks: Clocks) -> None:
    limiter = clocks.limit(requests_per_minute=2)
    limiter.restore([("a", NOON - 50, 3), ("b", NOON + 5, 3), ("c", NOON - 61, 3)], {})
    error = refused(limiter, key())
    assert isinstance(error, Overloaded)
    assert error.retry_after == 10
    clocks.pass_(10)
    limiter.reserve(key(), 1)
    refused(limiter, key())


def test_what_was_not_used_comes_back_to_its_own_place(clocks: Clocks) -> None:
    limiter = clocks.limit()
    whose = key(tokens_per_minute=100)
    first = limiter.reserve(whose, 60)
    clocks.pass_(30)
    second = limiter.reserve(whose, 40)
    assert refused(limiter, whose, 1).headers()["retry-after"] == "30"
    first.settle(10)
    third = limiter.reserve(whose, 50)
    second.settle(45)
    third.settle(50)
    third.settle(0)
    assert limiter.headers(whose)["x-ratelimit-remaining-tokens"] == "0"
    # Ten of the first leave the window after half a minute, and no more than ten.
    clocks.pass_(30)
    assert limiter.headers(whose)["x-ratelimit-remaining-tokens"] == "5"


def test_a_late_settlement_changes_no_later_minute_and_no_other_day(clocks: Clocks) -> None:
    limiter = clocks.limit()
    whose = key(tokens_per_minute=1000, tokens_per_day=1000, tokens_per_month=1500)
    late = limiter.reserve(whose, 900)
    clocks.pass_(86_400)
    limiter.reserve(whose, 800).settle(800)
    late.settle(0)
    assert limiter.headers(whose)["x-ratelimit-remaining-tokens"] == "200"
    clocks.pass_(60)
    assert isinstance(refused(limiter, whose, 201), QuotaExceeded)
    limiter.reserve(whose, 200)


def test_a_budget_is_whole_again_the_next_day_and_month(clocks: Clocks) -> None:
    limiter = clocks.limit()
    whose = key(tokens_per_day=100, tokens_per_month=150)
    limiter.reserve(whose, 100).settle(100)
    error = refused(limiter, whose, 1)
    assert isinstance(error, QuotaExceeded)
    assert error.code == "insufficient_quota"
    assert error.headers() == {
        "retry-after": "120",
        "retry-after-ms": "120000",
        "x-should-retry": "false",
    }
    assert "0 of 100 tokens are left of the budget of this day" in error.message
    clocks.pass_(43_199)
    assert refused(limiter, whose, 1).headers()["retry-after"] == "1"
    # The next day is the first of a month.
    clocks.pass_(1)
    limiter.reserve(whose, 100).settle(100)
    clocks.pass_(86_400)
    assert "50 of 150 tokens are left of the budget of this month" in (
        refused(limiter, whose, 51).message
    )
    limiter.reserve(whose, 50)


@pytest.mark.parametrize("jump", [-1.0, -3600.0, -86_000.0])
def test_a_clock_set_back_gives_no_budget_out_twice(clocks: Clocks, jump: float) -> None:
    clocks.wall = NOON + 43_200
    limiter = clocks.limit()
    whose = key(tokens_per_day=100)
    limiter.reserve(whose, 100).settle(100)
    clocks.wall += jump
    refused(limiter, whose, 1)


def test_a_clock_that_was_years_ahead_leaves_no_day_without_an_end(clocks: Clocks) -> None:
    clocks.wall += 3 * 365 * 86_400
    limiter = clocks.limit()
    whose = key(tokens_per_day=100)
    limiter.reserve(whose, 100).settle(100)
    clocks.wall = NOON
    limiter.reserve(whose, 100).settle(100)
    refused(limiter, whose, 1)
    clocks.pass_(86_400)
    limiter.reserve(whose, 100)


def test_requests_at_once(clocks: Clocks) -> None:
    limiter = clocks.limit(parallel_requests=3)
    whose = key(parallel_requests=2)
    held = [limiter.reserve(whose, 1) for _ in range(2)]
    error = refused(limiter, whose)
    assert isinstance(error, RateLimited)
    assert "2 requests at once" in error.message
    other = limiter.reserve(key("other"), 1)
    assert isinstance(refused(limiter, key("other")), Overloaded)
    other.settle(0)
    held.pop().settle(1)
    limiter.reserve(whose, 1)
    refused(limiter, whose)


@given(
    own=st.integers(0, 6), total=st.integers(0, 6), sizes=st.lists(st.integers(1, 3), max_size=8)
)
def test_all_of_it_or_nothing(own: int, total: int, sizes: list[int]) -> None:
    """What one limit refuses counts in none of the others."""
    clocks = Clocks()
    limiter = clocks.limit(tokens_per_minute=total, requests_per_minute=50)
    whose = key(tokens_per_minute=own, requests_per_minute=4, tokens_per_day=50)
    taken: list[Reservation] = []
    for size in sizes:
        try:
            taken.append(limiter.reserve(whose, size))
        except (RateLimited, Overloaded):
            continue
    told = limiter.headers(whose)
    spent = sum(each.tokens for each in taken)
    assert told["x-ratelimit-remaining-tokens"] == str(own - spent)
    assert told["x-ratelimit-remaining-requests"] == str(4 - len(taken))
    told = limiter.headers(key("other"))
    assert told["x-ratelimit-remaining-tokens"] == str(total - spent)
    assert told["x-ratelimit-remaining-requests"] == str(50 - len(taken))


@pytest.mark.parametrize(
    "limit", ["requests_per_minute", "tokens_per_minute", "parallel_requests", "tokens_per_day"]
)
def test_a_limit_of_nothing_lets_nothing_in(clocks: Clocks, limit: str) -> None:
    limits = KeyLimits(**{limit: 0})
    assert isinstance(refused(clocks.limit(), Key(id="k", name="k", limits=limits)), RateLimited)


def test_what_no_wait_can_mend_is_said_to_be_so(clocks: Clocks) -> None:
    limiter = clocks.limit(tokens_per_minute=500)
    for whose, limit in ((key(tokens_per_minute=100), 100), (key("other"), 500)):
        error = refused(limiter, whose, 501)
        assert isinstance(error, RateLimited)
        assert error.headers()["x-should-retry"] == "false"
        assert f"no more than {limit} are allowed" in error.message
    assert "x-should-retry" not in refused(limiter, key(requests_per_minute=0), 1).headers()


def test_limits_may_change_and_what_is_counted_stays(clocks: Clocks) -> None:
    limiter = clocks.limit()
    for _ in range(3):
        limiter.reserve(key(), 1)
    limiter.apply(KeyLimits(requests_per_minute=4))
    limiter.reserve(key(), 1)
    refused(limiter, key())
    refused(limiter, key(requests_per_minute=4))
    limiter.apply(KeyLimits())
    limiter.reserve(key(), 1)


def test_headers_are_of_the_keys_own_limits_else_of_the_whole(clocks: Clocks) -> None:
    limiter = clocks.limit(requests_per_minute=10)
    assert limiter.headers(key(tokens_per_minute=7)) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "10",
        "x-ratelimit-reset-requests": "0s",
        "x-ratelimit-limit-tokens": "7",
        "x-ratelimit-remaining-tokens": "7",
        "x-ratelimit-reset-tokens": "0s",
    }
    reservation = limiter.reserve(key(tokens_per_minute=7), 5)
    clocks.pass_(59.75)
    assert reservation.headers() == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "250ms",
        "x-ratelimit-limit-tokens": "7",
        "x-ratelimit-remaining-tokens": "2",
        "x-ratelimit-reset-tokens": "250ms",
    }
    limiter.apply(KeyLimits())
    assert limiter.headers(key("other")) == {}
