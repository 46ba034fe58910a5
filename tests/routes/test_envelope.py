"""What every response carries, and what is noted of every request."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator
from http.client import HTTPConnection

import pytest

from qwen_openai.core import Event, Job, Routed, Started
from qwen_openai.engines.fake import FakeEngine, Step
from qwen_openai.errors import EngineFailed, UpstreamFailed
from qwen_openai.observe.metrics import Metrics
from qwen_openai.observe.record import Record
from tests.live import Answer, Live, call, live, threaded, until

_PATH = "/v1/chat/completions"
_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Routing(FakeEngine):
    """Plays a pool: says where a job goes, and keeps the jobs."""

    seen: list[Job]

    async def _generate(self, job: Job) -> AsyncGenerator[Event, None]:
        yield Routed(job.choice, "first", 1)
        yield Routed(job.choice, "second", 2)
        async for event in super().generate(job):
            yield event

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        self.seen = [*getattr(self, "seen", ()), job]
        return self._generate(job)


def _script(job: Job) -> Iterable[Step]:
    text = job.messages[-1].content
    if text == "early":
        return [UpstreamFailed("nobody answered")]
    if text == "crash":
        return [RuntimeError("a bug")]
    if text == "late":
        return ["some", EngineFailed("broke")]
    return ["some", " words"]


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with threaded(lambda: Routing(_script)) as running:
        yield running


def _ask(
    server: Live, text: str = "hello", *, headers: dict[str, str] | None = None, **more: object
) -> Answer:
    body = {"model": "fake", "messages": [{"role": "user", "content": text}], **more}
    return call(server.port, "POST", _PATH, body, headers)


class Kept(Metrics):
    """Metrics that keep what they are told."""

    def __init__(self, server: Live) -> None:
        super().__init__()
        self.records: list[Record] = []
        server.gateway.metrics = self

    def observe(self, record: Record) -> None:
        super().observe(record)
        self.records.append(record)


@pytest.mark.parametrize(
    ("text", "stream", "status"),
    [("hello", False, 200), ("hello", True, 200), ("early", False, 502), ("early", True, 502)],
)
def test_headers_say_which_way_a_request_went(
    server: Live, text: str, stream: bool, status: int
) -> None:
    answer = _ask(server, text, stream=stream)
    assert answer.status == status
    assert answer.headers["x-gateway-upstream"] == "second"
    assert answer.headers["x-gateway-attempts"] == "2"
    assert answer.headers["x-gateway-queue-ms"].isdigit()
    assert answer.headers["openai-processing-ms"].isdigit()
    assert answer.headers["openai-version"] == "2020-10-01"


@pytest.mark.parametrize("path", ["/nothing", "/v1/models", "/health/live"])
def test_headers_leave_out_what_did_not_happen(server: Live, path: str) -> None:
    headers = call(server.port, "GET", path).headers
    assert headers["openai-processing-ms"].isdigit()
    assert not [name for name in headers if name.startswith("x-gateway-")]


@pytest.mark.parametrize(
    ("text", "stream", "noted"),
    [
        ("hello", False, (200, "ok", "", 2)),
        ("hello", True, (200, "ok", "", 2)),
        ("early", True, (502, "error", "upstream_error", 0)),
        ("late", True, (200, "error", "engine_error", 1)),
        ("late", False, (500, "error", "engine_error", 1)),
        ("crash", True, (500, "error", "internal_error", 0)),
    ],
)
async def test_what_is_noted(text: str, stream: bool, noted: tuple[int, str, str, int]) -> None:
    async with live(Routing(_script)) as server:
        kept = Kept(server)
        await asyncio.to_thread(_ask, server, text, stream=stream)
        await until(lambda: len(kept.records) == 1)
        (record,) = kept.records
        tokens = record.usage.completion_tokens if record.usage else 0
        assert (record.status, record.outcome, record.error, tokens) == noted
        assert (record.route, record.model, record.streams) == (_PATH, "fake", stream)
        assert record.tried == ["first", "second"]
        assert record.failed == ["first"]
        assert kept.in_flight == 0


async def test_a_client_that_leaves_is_noted_with_what_it_cost() -> None:
    gate = asyncio.Event()
    async with live(FakeEngine(lambda job: ["one", " two", gate])) as server:

        def leave() -> None:
            connection = HTTPConnection("127.0.0.1", server.port)
            body = '{"model":"fake","stream":true,"messages":[{"role":"user","content":"a b"}]}'
            connection.request("POST", _PATH, body, {"content-type": "application/json"})
            response = connection.getresponse()
            while b"two" not in response.readline():
                pass
            response.close()
            connection.close()

        kept = Kept(server)
        await asyncio.to_thread(leave)
        await until(lambda: len(kept.records) == 1)
        (record,) = kept.records
        assert (record.status, record.outcome, record.error) == (499, "aborted", "")
        assert record.usage is not None
        assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (2, 2)


async def test_one_that_leaves_before_its_answer_has_cost_its_prompt() -> None:
    reached = threading.Event()

    class Hanging(FakeEngine):
        """Takes the job and says no more."""

        async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
            yield Started(job.choice, 2)
            reached.set()
            await asyncio.Event().wait()

    async with live(Hanging()) as server:

        def leave() -> None:
            connection = HTTPConnection("127.0.0.1", server.port)
            body = '{"model":"fake","stream":true,"messages":[{"role":"user","content":"a b"}]}'
            connection.request("POST", _PATH, body, {"content-type": "application/json"})
            assert reached.wait(10)
            connection.close()

        kept = Kept(server)
        await asyncio.to_thread(leave)
        await until(lambda: len(kept.records) == 1)
        (record,) = kept.records
        assert record.outcome == "aborted"
        assert record.usage is not None
        assert record.usage.prompt_tokens == 2
        assert record.usage.completion_tokens == 0


@pytest.mark.parametrize(
    ("path", "given", "passed"),
    [
        (_PATH, _TRACE, _TRACE),
        ("/v1/completions", _TRACE, _TRACE),
        ("/", _TRACE, _TRACE),
        (_PATH, _TRACE.upper(), ""),
        (_PATH, _TRACE + "-more", ""),
        (_PATH, "00-" + "0" * 32 + _TRACE[35:], ""),
        (_PATH, _TRACE[:36] + "0" * 16 + "-01", ""),
        (_PATH, "ff" + _TRACE[2:], ""),
        (_PATH, "", ""),
    ],
)
async def test_a_trace_is_passed_on(path: str, given: str, passed: str) -> None:
    engine = Routing(lambda job: ["x"])
    async with live(engine) as server:
        body: dict[str, object] = {"model": "fake", "prompt": "hello"}
        if path == _PATH:
            body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
        elif path == "/":
            body = {"prompt": "hello"}
        headers = {"traceparent": given}
        answer = await asyncio.to_thread(call, server.port, "POST", path, body, headers)
        assert answer.status == 200
        assert [job.trace for job in engine.seen] == [passed]
