"""Streams of upstreams that are cut up, spoilt, torn or silent (rows 55, 57 and 58): put together
exactly, or ended by an error event, never in silence.
"""

import time
from collections.abc import Iterator

import pytest

from tests.live import until
from tests.upstream.client import Call, chat, heard
from tests.upstream.fronted import fronted, row
from tests.upstream.process import Mock, mocks
from tests.upstream.proxy import Break, Faults, proxied


@pytest.fixture(scope="module")
def started() -> Iterator[list[Mock]]:
    with mocks("a", "b") as made:
        yield made


@pytest.fixture
def pair(started: list[Mock]) -> list[Mock]:
    """Two mocks that behave and have counted nothing."""
    for mock in started:
        mock.control("", clear=True)
    return started


@pytest.mark.parametrize(
    "how",
    [
        "framing=crlf",
        "framing=bytes",
        "framing=hundred",
        "framing=packed",
        "framing=comments",
        "framing=bare",
    ],
)
async def test_however_it_is_cut_it_is_put_together(pair: list[Mock], how: str) -> None:
    """Row 57: line ends, characters split between packets, many events in one, comments."""
    async with fronted(pair) as server:
        text = f"hi mock:wide,deltas=12,{how}"
        options = {"include_usage": True}
        answer = await heard(server.port, text, stream_options=options)
        answer.whole(text, 12, wide=True)
        assert answer.done
        assert answer.usage is not None
        assert answer.usage["completion_tokens"] == 12


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_packed_unasked_is_refused_before_its_first_byte(
    pair: list[Mock], stream: bool
) -> None:
    """Row 57: gzip that nobody asked for is a bad server's, and may be a bomb."""
    async with fronted(pair[:1], breaker_failures=100) as server:
        answer = await heard(server.port, "hi mock:wide,deltas=12,gzip", stream=stream)
        assert answer.status == 502
        assert answer.error is not None
        assert answer.error["code"] == "upstream_error"


@pytest.mark.parametrize("most", [1, 7, 100])
async def test_a_network_that_splits_anywhere_changes_nothing(pair: list[Mock], most: int) -> None:
    """Row 57: headers and chunk sizes are split too."""
    splitting = Faults(most=most, seed=most)
    with proxied(pair[0].port, splitting) as proxy:
        async with fronted([row(proxy, "a")]) as server:
            for stream in (True, False):
                text = f"hi mock:wide,deltas=8 {stream}"
                (await heard(server.port, text, stream=stream)).whole(text, 8, wide=True)


@pytest.mark.parametrize("at", [2, 5])
@pytest.mark.parametrize(
    "ending", ["end", "cut", "reset", "error", "named", "nonjson", "long", "html", "nofinish"]
)
async def test_a_stream_that_breaks_says_so(pair: list[Mock], ending: str, at: int) -> None:
    """Rows 55 and 57: cut, torn, an error event, no JSON, a line without end, no finish_reason."""
    async with fronted(pair[:1], breaker_failures=100) as server:
        text = f"hi mock:deltas=8,at={at},ending={ending}"
        answer = await heard(server.port, text)
        count = answer.broken(text)
        assert count == 8 if ending == "nofinish" else count <= at
        assert answer.error is not None
        assert answer.error["type"] == "server_error"
        assert pair[0].report()["requests"] == 1
        (await heard(server.port, "then mock:deltas=3")).whole("then mock:deltas=3", 3)


async def test_a_stream_without_done_after_its_finish(pair: list[Mock]) -> None:
    """Row 55: all of the answer is there and only the last line is not: either the whole answer,
    or an error event; not silence."""
    async with fronted(pair[:1]) as server:
        text = "hi mock:deltas=4,ending=nodone"
        answer = await heard(server.port, text)
        if answer.error is None:
            answer.whole(text, 4)
            assert answer.done
        assert not answer.torn


@pytest.mark.parametrize("ending", ["end", "cut", "reset", "error", "nonjson", "long", "html"])
async def test_what_breaks_before_the_first_token_is_answered_by_another(
    pair: list[Mock], ending: str
) -> None:
    """Rows 54 and 57: garbage before the first piece is a failure that nobody need see."""
    pair[0].control(f"ending={ending},at=0,deltas=4")
    async with fronted(pair, breaker_failures=100) as server:
        for index in range(4):
            answer = await heard(server.port, f"{index}", max_tokens=4)
            answer.whole(f"{index}", 4)
            assert answer.upstream == "b"


@pytest.mark.parametrize("breaks", ["cut", "reset", "garbage", "half", "stall"])
async def test_a_network_that_breaks_in_the_middle(pair: list[Mock], breaks: Break) -> None:
    """Rows 54 and 57 by the network's fault, at several places."""
    with proxied(pair[0].port) as proxy:
        only = row(proxy, "a", models=["m"], kind="vllm")
        async with fronted([only], token_timeout=0.5, breaker_failures=1000) as server:
            for after in (900, 1111, 1500):
                proxy.set(breaks=breaks, after=after)
                text = f"{after} mock:deltas=12,gap=0.01,framing=lf"
                answer = await heard(server.port, text)
                if answer.status == 200:
                    answer.broken(text)
                else:
                    assert answer.status in (502, 504)
                proxy.set(breaks="")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("hang", ["headers", "first"])
async def test_silence_before_the_first_token_is_504(
    pair: list[Mock], hang: str, stream: bool
) -> None:
    """Row 58: the first token's own deadline."""
    async with fronted(
        pair[:1], first_token_timeout=0.4, token_timeout=30, breaker_failures=100
    ) as server:
        begun = time.monotonic()
        answer = await heard(server.port, f"hi mock:hang={hang}", stream=stream)
        assert 0.4 <= time.monotonic() - begun < 5 * 0.4
        if answer.status == 200:
            answer.broken("")
        else:
            assert answer.status == 504
        assert answer.error is not None
        assert answer.error["code"] == "upstream_timeout"
        await until(lambda: pair[0].report()["open"] == 0)


@pytest.mark.parametrize("how", ["hang=token", "ending=comments"])
async def test_silence_between_tokens_is_an_error_event(pair: list[Mock], how: str) -> None:
    """Row 58: comments are no tokens."""
    async with fronted(pair[:1], token_timeout=0.4, breaker_failures=100) as server:
        text = f"hi mock:at=3,deltas=9,{how}"
        begun = time.monotonic()
        answer = await heard(server.port, text)
        assert answer.broken(text) == 3
        assert 0.4 <= time.monotonic() - begun < 5 * 0.4
        assert answer.error is not None
        assert answer.error["code"] == "upstream_timeout"
        await until(lambda: pair[0].report()["open"] == 0)


async def test_a_trickle_for_ever_ends_at_the_whole_deadline(pair: list[Mock]) -> None:
    """Row 58: each token is in time, and all together never end."""
    async with fronted(pair[:1], total_timeout=0.8, breaker_failures=100) as server:
        text = "hi mock:gap=0.05,deltas=1000000"
        begun = time.monotonic()
        answer = await heard(server.port, text)
        assert 4 <= answer.broken(text) <= 17
        assert 0.8 <= time.monotonic() - begun < 5 * 0.8
        await until(lambda: pair[0].report()["open"] == 0)


async def test_pings_come_while_the_upstream_is_silent(pair: list[Mock]) -> None:
    """Row 58: the client's own timeout sees life between two tokens."""
    async with fronted(pair[:1], token_timeout=20, ping_interval=0.1) as server:
        call = await Call.post(server.port, chat("hi mock:hang=token"))
        await call.until("\n2 ")
        seen = await call.raw_until(b": ")
        assert b"\n\n" in seen
        call.leave()
