"""Until when callers wait: what the headers say, and what becomes of work that is too late."""

import asyncio
import time
from collections.abc import Iterable

import pytest

from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Step, reply
from qwen_openai.errors import InvalidRequest
from qwen_openai.observe.record import Record
from qwen_openai.routes.deadline import patience_of
from tests.live import Answer, Live, call, live, until

PATH = "/v1/chat/completions"


def scope(*headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"type": "http", "headers": list(headers)}


def wish(value: bytes) -> tuple[bytes, bytes]:
    return b"x-request-timeout", value


def said(value: bytes) -> tuple[bytes, bytes]:
    return b"x-stainless-read-timeout", value


def test_times_are_counted_from_the_beginning_of_the_request() -> None:
    record = Record(begun=time.perf_counter() - 7)
    patience = patience_of(scope(wish(b"10"), said(b" 20.5 ")), record)
    assert patience.deadline is not None
    assert patience.begin_by is not None
    assert patience.deadline - time.monotonic() == pytest.approx(3, abs=0.5)
    assert patience.begin_by - patience.deadline == pytest.approx(10.5, abs=0.001)


def test_who_says_nothing_waits_for_ever() -> None:
    patience = patience_of(scope(), Record())
    assert (patience.deadline, patience.begin_by) == (None, None)


JUNK = [b"", b"0", b"-1", b"nan", b"inf", b"86400.1", b"1e9", b"ten", b"1,5", b"\xff", b"NOT_GIVEN"]


@pytest.mark.parametrize("value", JUNK)
def test_a_wish_that_is_none_is_refused_and_a_library_is_not_blamed(value: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        patience_of(scope(wish(value)), Record())
    assert refused.value.param == "x-request-timeout"
    assert patience_of(scope(said(value)), Record()).begin_by is None


def test_two_wishes_are_none() -> None:
    with pytest.raises(InvalidRequest):
        patience_of(scope(wish(b"1"), wish(b"2")), Record())
    assert patience_of(scope(said(b"1"), said(b"2")), Record()).begin_by is None


async def post(server: Live, headers: dict[str, str], **body: object) -> Answer:
    given = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], **body}
    return await asyncio.to_thread(call, server.port, "POST", PATH, given, headers)


def stuck(_: Job) -> Iterable[Step]:
    """No answer, ever."""
    return [asyncio.Event()]


def begun(_: Job) -> Iterable[Step]:
    """A first word and no second one."""
    return ["One", asyncio.Event()]


@pytest.mark.parametrize("header", ["x-request-timeout", "x-stainless-read-timeout"])
@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_before_the_first_byte_is_504(header: str, stream: bool) -> None:
    engine = FakeEngine(stuck)
    async with live(engine) as server:
        answer = await post(server, {header: "0.1"}, stream=stream)
        error = answer.json()["error"]
        assert (answer.status, error["code"]) == (504, "deadline_exceeded")
        assert "x-request-timeout" in error["message"]
        await until(lambda: engine.record.open == 0)
        engine.script = reply("Well.")
        assert (await post(server, {header: "5"})).status == 200


async def test_a_stream_that_takes_too_long_ends_in_an_error() -> None:
    engine = FakeEngine(begun)
    async with live(engine) as server:
        answer = await post(server, {"x-request-timeout": "0.2"}, stream=True)
        events = answer.body.decode().strip().split("\n\n")
        assert answer.status == 200
        assert '"One"' in events[1]
        assert "deadline_exceeded" in events[-2]
        assert events[-1] == "data: [DONE]"
        await until(lambda: engine.record.open == 0)
        assert server.gateway.default()[1].service.admission.running == 0


async def test_a_plain_answer_is_late_however_much_of_it_is_there() -> None:
    async with live(FakeEngine(begun)) as server:
        for header in ("x-request-timeout", "x-stainless-read-timeout"):
            assert (await post(server, {header: "0.1"})).status == 504


async def test_silence_after_the_first_byte_is_not_the_librarys_business() -> None:
    def slow(_: Job) -> Iterable[Step]:
        return ["One", 0.4, " two"]

    async with live(FakeEngine(slow)) as server:
        answer = await post(server, {"x-stainless-read-timeout": "0.2"}, stream=True)
        assert b'" two"' in answer.body
        assert b"error" not in answer.body


async def test_several_answers_end_together() -> None:
    engine = FakeEngine(begun, slots=2)
    async with live(engine) as server:
        assert (await post(server, {"x-request-timeout": "0.1"}, n=2)).status == 504
        await until(lambda: engine.record.open == 0)
        assert server.gateway.default()[1].service.admission.running == 0


async def test_a_wish_that_is_none_is_400_on_every_endpoint() -> None:
    bodies: dict[str, dict[str, object]] = {
        PATH: {"messages": [{"role": "user", "content": "Hi"}]},
        "/v1/completions": {"prompt": "Hi"},
        "/v1/responses": {"input": "Hi"},
    }
    async with live(FakeEngine()) as server:
        for path, body in bodies.items():
            given = {"model": "fake", **body}
            headers = {"x-request-timeout": "soon"}
            answer = await asyncio.to_thread(call, server.port, "POST", path, given, headers)
            assert (answer.status, answer.json()["error"]["param"]) == (400, "x-request-timeout")


async def test_in_the_queue_time_runs_too() -> None:
    engine = FakeEngine(stuck, slots=1)
    async with live(engine) as server:
        service = server.gateway.default()[1].service
        service._slot_seconds = 0.01
        first = asyncio.create_task(post(server, {"x-request-timeout": "1"}))
        await until(lambda: service.admission.running == 1)
        second = await post(server, {"x-request-timeout": "0.2"})
        assert (second.status, service.admission.waiting) == (504, 0)
        service._slot_seconds = 60.0
        third = await post(server, {"x-request-timeout": "0.5"})
        assert (third.status, third.json()["error"]["code"]) == (503, "overloaded")
        assert 1 <= int(third.headers["retry-after"]) <= 120
        assert (await first).status == 504
        assert engine.record.started == 1
