"""Upstreams that are killed while they answer (row 54): nothing is lost silently, repeated or
garbled, and what had not begun is answered by another.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.live import Live, until
from tests.upstream.client import Call, Heard, chat
from tests.upstream.fronted import fronted, kept, settles
from tests.upstream.process import Mock, mocks

# Seconds from the kill to the error event: asserted at five times what is promised.
PROMISED, ASSERTED = 1.0, 5.0
_PIECES = 80
_STREAMS = 10
# What has not begun: no headers yet, headers only, a plain answer.
_UNSTARTED = ("delay=0.5,deltas=5", "first=0.5,deltas=5")


@dataclass(slots=True)
class Tally:
    """What many kills did."""

    broken: int = 0
    whole: int = 0
    moved: int = 0
    slowest: float = 0.0
    at_pieces: list[int] = field(default_factory=list)


@pytest.fixture
def pair() -> Iterator[list[Mock]]:
    with mocks("a", "b") as made:
        yield made


async def test_kills_in_the_middle_of_streams(pair: list[Mock], soak: bool) -> None:
    """Row 54: 8 kills, 100 with --soak, of either mock by turns, each with streams open at both
    and requests that have not begun."""
    kills = 100 if soak else 8
    tally = Tally()
    async with fronted(pair, breaker_failures=3, affinity_gap=0) as server:
        before = kept(server, pair)
        for number in range(kills):
            await _up(server)
            await _kill(server, pair, number, tally)
            pair[number % 2].start()
        await _up(server)
        await settles(server, pair, before)
    # For scripts/soak, which shows what tests say. Lost, repeated, garbled or silent ones fail.
    sys.stdout.write(
        f"{kills} kills: {tally.broken} streams told of it, slowest {tally.slowest:.4f} s; "
        f"{tally.whole} others whole; {tally.moved} not begun were answered by the other\n"
    )
    assert tally.broken >= kills
    assert tally.whole >= kills
    assert tally.moved >= kills
    assert tally.slowest < ASSERTED, tally


async def _up(server: Live) -> None:
    await until(lambda: [state.state for state in server.gateway.pool.states()] == ["up"] * 2)


def _asked(pair: list[Mock]) -> int:
    return sum(int(mock.report()["requests"]) for mock in pair)


async def _kill(server: Live, pair: list[Mock], number: int, tally: Tally) -> None:
    victim, before = pair[number % 2], _asked(pair)
    streams = {
        tag: await Call.post(server.port, chat(tag))
        for tag in (f"{number}-{index} mock:gap=0.01,deltas={_PIECES}" for index in range(_STREAMS))
    }
    await asyncio.gather(*(call.until("\n2 ") for call in streams.values()))
    unstarted = {}
    for index in range(6):
        tag = f"{number}-u{index} mock:{_UNSTARTED[index % 2]}"
        unstarted[tag] = await Call.post(server.port, chat(tag, stream=index < 4))
    await until(lambda: _asked(pair) - before >= _STREAMS + 6)
    killed = time.monotonic()
    victim.kill()
    calls = {**streams, **unstarted}
    answers = await asyncio.gather(*(call.rest() for call in calls.values()))
    for tag, heard in zip(calls, answers, strict=True):
        if tag in streams:
            _judge(tag, heard, victim, killed, tally)
        else:
            # The victim's only if all of it was there before the kill.
            heard.whole(tag, 5)
            tally.moved += heard.attempts > 1


def _judge(tag: str, heard: Heard, victim: Mock, killed: float, tally: Tally) -> None:
    if heard.upstream == victim.name and heard.error is not None:
        tally.at_pieces.append(heard.broken(tag))
        tally.broken += 1
        tally.slowest = max(tally.slowest, heard.failed - killed, heard.ended - killed)
    else:
        # The other one's, or all of it had been sent before the kill.
        heard.whole(tag, _PIECES)
        tally.whole += 1


async def test_a_killed_upstream_is_answered_for_by_the_other(pair: list[Mock]) -> None:
    """Row 54, before headers: every request sent while one is dead is answered, plain or stream."""
    async with fronted(pair) as server:
        pair[0].kill()
        for index in range(12):
            tag = f"{index} mock:deltas=3"
            call = await Call.post(server.port, chat(tag, stream=bool(index % 2)))
            heard = await call.rest()
            heard.whole(tag, 3)
            assert heard.upstream == "b"


async def test_a_frozen_upstream_is_a_timeout_and_then_left_alone(pair: list[Mock]) -> None:
    """Row 58: SIGSTOP: connections are taken by the kernel, and nothing answers."""
    async with fronted(pair, first_token_timeout=0.5, token_timeout=0.5) as server:
        tag = "mid mock:gap=0.05,deltas=1000"
        calls = [await Call.post(server.port, chat(tag)) for _ in range(4)]
        await asyncio.gather(*(call.until("\n2 ") for call in calls))
        victim = next(mock for mock in pair if mock.name == calls[0].heard.upstream)
        victim.freeze()
        try:
            for call in (each for each in calls if each.heard.upstream == victim.name):
                heard = await call.rest()
                heard.broken(tag)
                assert heard.error is not None
                assert heard.error["code"] == "upstream_timeout"
            for index in range(6):
                late = f"{index} mock:deltas=3"
                (await (await Call.post(server.port, chat(late))).rest()).whole(late, 3)
        finally:
            victim.thaw()
            for call in calls:
                call.leave()
