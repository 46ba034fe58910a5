"""Upstreams that refuse, fail or lie before their first token (rows 53, 56, 59 and 60): another one
is asked, and what reaches the client is true, typed and free of secrets.
"""

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.live import until
from tests.upstream.client import Heard, heard
from tests.upstream.fronted import fronted, row
from tests.upstream.process import Mock, free_port, mocks
from tests.upstream.proxy import Faults, proxied

SECRET = "sk-upstream-secret-0123456789"  # a canary


@pytest.fixture(scope="module")
def started() -> Iterator[list[Mock]]:
    with mocks("a", "b") as made:
        yield made


@pytest.fixture
def pair(started: list[Mock]) -> list[Mock]:
    """Two mocks that behave and have counted nothing."""
    for mock in started:
        mock.control("", clear=True, keep=False, up=True, models=["m"])
    return started


def typed(answer: Heard, status: int, code: str | None = None) -> dict[str, object]:
    """Fail unless the answer is an error of OpenAI's shape; the error."""
    assert answer.status == status, answer
    assert answer.error is not None
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    if code is not None:
        assert answer.error["code"] == code
    return answer.error


def dead(name: str, **more: object) -> dict[str, object]:
    """An upstream that nobody listens for."""
    return row(f"http://127.0.0.1:{free_port()}/v1", name, models=["m"], **more)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_upstream_that_refuses_is_passed_by(pair: list[Mock], stream: bool) -> None:
    """Row 53: refused: the next one answers."""
    async with fronted([dead("gone"), row(pair[0], models=["m"])]) as server:
        for index in range(8):
            text = f"{index} mock:deltas=3"
            answer = await heard(server.port, text, stream=stream)
            answer.whole(text, 3)
            assert answer.upstream == "a"
            assert answer.attempts in (1, 2)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://127.0.0.1:1/v1", 502),
        ("http://no-such-host.invalid/v1", 502),
        ("https://127.0.0.1:{plain}/v1", 502),
    ],
    ids=["refused", "dns", "tls"],
)
async def test_where_none_is_left_the_answer_is_502(
    pair: list[Mock], url: str, status: int, stream: bool
) -> None:
    """Row 53: refused, no such name, TLS that is none. The addresses stay ours."""
    bad = row(url.format(plain=pair[0].port), "bad", models=["m"])
    async with fronted([bad], breaker_failures=100) as server:
        answer = await heard(server.port, "hi", stream=stream)
        error = typed(answer, status, "upstream_error")
        assert "bad" in str(error["message"])
        for hidden in ("127.0.0.1", "invalid", str(pair[0].port)):
            assert hidden not in str(error["message"])
        assert answer.attempts >= 1


async def test_a_connection_that_hangs_is_504(pair: list[Mock]) -> None:
    """Rows 53 and 58: taken and never served: the first token's deadline; with another: passed."""
    with proxied(pair[0].port, Faults(door="hang")) as proxy:
        hung = row(proxy, "hung", models=["m"], kind="vllm")
        async with fronted([hung], first_token_timeout=0.3, breaker_failures=100) as server:
            for stream in (True, False):
                answer = await heard(server.port, "hi", stream=stream)
                typed(answer, 504, "upstream_timeout")
        both = [hung, row(pair[1], models=["m"])]
        async with fronted(both, first_token_timeout=0.5, breaker_failures=100) as server:
            for index in range(4):
                text = f"{index} mock:deltas=3"
                (await heard(server.port, text)).whole(text, 3)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 401, 403, 404])
async def test_a_failing_upstream_is_passed_by(pair: list[Mock], status: int, stream: bool) -> None:
    """Row 56: another one answers, and the client sees nothing of it."""
    pair[0].control(f"status={status},retry_after=3600,leak")
    async with fronted(pair, breaker_failures=100) as server:
        seen = set()
        for index in range(6):
            answer = await heard(server.port, f"{index}", stream=stream, max_tokens=3)
            answer.whole(f"{index}", 3)
            seen.add(answer.attempts)
            assert answer.upstream == "b"
        assert 1 <= max(seen) <= 2


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        ("status=500", 502),
        ("status=503", 503),
        ("status=503,retry_after=3600", 503),
        ("status=429", 503),
        ("status=429,retry_after=3600", 503),
        ("status=401", 502),
        ("status=403", 502),
        ("status=404", 502),
        ("status=500,html", 502),
        ("html", 502),
    ],
)
async def test_where_all_fail_the_client_learns_the_true_kind(
    pair: list[Mock], behaviour: str, status: int, stream: bool
) -> None:
    """Rows 56 and 57: the last failure's meaning, hints capped, nothing of ours in the text."""
    for mock in pair:
        mock.control(f"{behaviour},leak")
    rows = [row(mock, api_key=SECRET, models=["m"]) for mock in pair]
    async with fronted(rows, breaker_failures=100) as server:
        answer = await heard(server.port, "hi", stream=stream)
        error = typed(answer, status)
        if status == 503:
            assert 1 <= int(answer.headers["retry-after"]) <= 120
        message = str(error["message"])
        assert SECRET not in message
        assert "127.0.0.1" not in message
        if "401" in behaviour or "403" in behaviour:
            assert "credentials" in message
        assert 2 <= sum(mock.report()["requests"] for mock in pair) <= 3


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 422])
async def test_what_the_client_did_wrong_is_told_once(
    pair: list[Mock], status: int, stream: bool
) -> None:
    """Row 56: 400 is passed, not retried, and no failure of the upstream."""
    for mock in pair:
        mock.control(f"status={status},leak,code=bad_thing")
    rows = [row(mock, api_key=SECRET, models=["m"]) for mock in pair]
    async with fronted(rows, breaker_failures=1) as server:
        for _ in range(5):
            error = typed(await heard(server.port, "hi", stream=stream), 400)
            assert "as it was told to" in str(error["message"])
            assert SECRET not in str(error)
            assert "127.0.0.1" not in str(error)
        assert sum(mock.report()["requests"] for mock in pair) == 5
        assert [state.state for state in server.gateway.pool.states()] == ["up", "up"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_wrong_model_name_and_no_usage(pair: list[Mock], stream: bool) -> None:
    """Row 59: the client sees the name that it asked for, and usage that was counted, or none."""
    renamed = row(pair[0], models={"mine": "m", "m": "m"})
    async with fronted([renamed]) as server:
        text = "hi mock:model=somebody-elses,usage=0,deltas=4"
        options = {"stream_options": {"include_usage": True}} if stream else {}
        answer = await heard(server.port, text, stream=stream, model="mine", **options)
        answer.whole(text, 4)
        assert {event["model"] for event in answer.events} <= {"mine"}
        assert b"somebody" not in answer.body
        assert answer.usage is None or answer.usage["completion_tokens"] >= 1


async def test_huge_logprobs_are_passed(pair: list[Mock]) -> None:
    """Row 59: 2,000 alternatives for a token are a big body, and no failure."""
    async with fronted(pair) as server:
        text = "hi mock:logprobs=2000,deltas=3"
        for stream in (True, False):
            asked = {"logprobs": True, "top_logprobs": 5}
            (await heard(server.port, text, stream=stream, **asked)).whole(text, 3)


async def test_all_down_and_back(pair: list[Mock]) -> None:
    """Row 60: 503 at once with a time to come back, and soon after the return all is well."""
    for mock in pair:
        mock.control("status=500")
    async with fronted(pair, breaker_failures=1, probe_interval=0.2) as server:
        pool = server.gateway.pool
        for mock in pair:
            mock.control(up=False)
        for _ in range(8):
            await heard(server.port, "down")
            if not {state.state for state in pool.states()} & {"up", "unknown"}:
                break
        await until(lambda: not {state.state for state in pool.states()} & {"up", "unknown"})
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            answer = await heard(server.port, "down")
            times.append(time.perf_counter() - begun)
            typed(answer, 503)
            assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert sorted(times)[10] < 0.05  # 10 ms are promised
        for mock in pair:
            mock.control("", up=True, clear=True)
        back = time.monotonic()
        await until(lambda: "up" in {state.state for state in pool.states()})
        assert time.monotonic() - back < 5 * (0.2 * 2 + 0.1)
        # A look alone proves little: the first request is a trial, and then all may come.
        (await heard(server.port, "first mock:deltas=3")).whole("first mock:deltas=3", 3)
        answers = await asyncio.gather(
            *(heard(server.port, f"{index} mock:deltas=3") for index in range(20))
        )
        for index, answer in enumerate(answers):
            answer.whole(f"{index} mock:deltas=3", 3)


async def test_a_half_open_upstream_is_tried_by_one(pair: list[Mock]) -> None:
    """Row 60: no stampede: while nobody knows whether it is back, it gets one look at a time."""
    pair[0].control("status=500")
    async with fronted(pair[:1], breaker_failures=1, probe_interval=0.2) as server:
        typed(await heard(server.port, "first"), 502)
        pair[0].control("status=500,delay=0.3", clear=True)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            answers = await asyncio.gather(*(heard(server.port, "x") for _ in range(10)))
            assert {answer.status for answer in answers} <= {502, 503}
            await asyncio.sleep(0.02)
        assert pair[0].report()["most_open"] <= 1


@pytest.mark.parametrize(
    "faults",
    [Faults(breaks="reset", after=0), Faults(breaks="cut", after=40), Faults(door="refuse")],
    ids=["reset", "cut in the headers", "refused"],
)
async def test_networks_that_break_before_the_first_token(pair: list[Mock], faults: Faults) -> None:
    """Row 54 by the network's fault: invisible where there is another upstream."""
    with proxied(pair[0].port) as proxy:
        both = [row(proxy, "shaky", models=["m"]), row(pair[1], models=["m"])]
        async with fronted(both, breaker_failures=100) as server:
            proxy.set(door=faults.door, breaks=faults.breaks, after=faults.after)
            for index in range(6):
                for stream in (True, False):
                    text = f"{index} mock:deltas=3"
                    answer = await heard(server.port, text, stream=stream)
                    answer.whole(text, 3)
                    assert answer.upstream == "b"


async def test_a_kept_connection_that_the_upstream_closed_is_no_failure(pair: list[Mock]) -> None:
    """Row 54: between two requests an idle connection dies: the next one does not notice."""
    async with fronted(pair[:1], breaker_failures=1) as server:
        for index in range(3):
            text = f"{index} mock:deltas=3"
            (await heard(server.port, text, stream=False)).whole(text, 3)
            pair[0].kill()
            pair[0].start()
            await until(lambda: [each.state for each in server.gateway.pool.states()] == ["up"])
