"""What all endpoints that generate have in common: body to jobs, jobs to events, events to bytes.

An endpoint says what a body asks for (`Asked`); here it is checked, run and answered, plain or as
a stream. Knows no endpoint's shapes.
"""

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from starlette.types import Receive, Scope, Send

from qwen_openai.chat import Opened
from qwen_openai.core import Event, Job
from qwen_openai.errors import ApiError, ContextLengthExceeded
from qwen_openai.responses.fold import Fold
from qwen_openai.routes.body import read_json_bytes
from qwen_openai.routes.disconnect import until_disconnect
from qwen_openai.routes.entry import Entry, entered
from qwen_openai.routes.gateway import Caller, Gateway, Served
from qwen_openai.routes.notes import key_of, note_headers, record_of
from qwen_openai.routes.respond import Pings, send_events, send_json
from qwen_openai.routes.work import off_loop

_T = TypeVar("_T")

_STRICT = re.compile(rb"(?:^|&)strict=(?:1|true)(?:&|$)")


class Reply(Protocol):
    """What an endpoint makes of events; one a request.

    A stream is the frames of `opening`, of the `chunks` of every event in order, and of `closing`,
    then `done`; one that breaks ends with `failed`. The plain answer is `body`.
    """

    @property
    def done(self) -> bytes:
        """The last bytes of a whole stream, perhaps none."""

    def opening(self) -> Sequence[object]: ...
    def chunks(self, event: Event) -> Sequence[object]: ...
    def closing(self, fold: Fold) -> Sequence[object]: ...
    def body(self, fold: Fold) -> object: ...
    def frame(self, chunk: object) -> bytes: ...
    def failed(self, error: ApiError) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request asks for. ``jobs`` are as `ChatService.open_all` takes them, all of one
    request, for the model ``served``, and ``fold`` has a place for each; ``prompt_param`` is the
    parameter that holds the prompt, for errors."""

    served: Served
    jobs: tuple[Job, ...]
    reply: Reply
    fold: Fold
    stream: bool
    prompt_param: str = "messages"


async def generate(
    gateway: Gateway,
    scope: Scope,
    receive: Receive,
    send: Send,
    adapt: Callable[[bytes, Caller], Asked],
) -> None:
    """Read a request, run it, answer it. ``adapt`` is as `read` takes it."""
    asked = await read(gateway, scope, receive, adapt)
    await until_disconnect(scope, receive, answer(gateway, scope, send, asked))


async def read(
    gateway: Gateway, scope: Scope, receive: Receive, adapt: Callable[[bytes, Caller], _T]
) -> _T:
    """Return what ``adapt`` makes of a request's body. It is told who asks, and whether parameters
    without effect are to be refused; it is CPU work, and may raise any ApiError."""
    raw = await read_json_bytes(scope, receive, gateway.settings)
    caller = Caller(key_of(scope), is_strict(scope, gateway))
    return await off_loop(len(raw), adapt, raw, caller)


def is_strict(scope: Scope, gateway: Gateway) -> bool:
    """Whether the URL's query, or the operator, turns ignoring parameters into refusing them."""
    return gateway.settings.strict_parameters or bool(_STRICT.search(scope["query_string"]))


async def answer(gateway: Gateway, scope: Scope, send: Send, asked: Asked) -> None:
    """Run what is asked for and send the answer, plain or as a stream."""
    job = asked.jobs[0]
    record = record_of(scope)
    record.model, record.streams, record.n = job.model, asked.stream, job.n
    with entered(gateway, scope, asked.jobs) as entry:
        # All jobs of a request have the same grammar, which is refused before a slot is taken; to
        # check it is work, which is not for whoever is over a limit.
        if job.grammar is not None:
            await gateway.grammars.check(job.grammar)
        if asked.stream:
            settings = gateway.settings
            await _stream(send, asked, entry, Pings(settings.ping_interval, settings.ping_early))
        else:
            await _send_whole(send, asked, entry)


async def _open(asked: Asked, entry: Entry) -> Opened:
    return await open_jobs(asked.served, asked.jobs, entry, prompt_param=asked.prompt_param)


async def open_jobs(
    served: Served, jobs: Sequence[Job], entry: Entry, *, prompt_param: str
) -> Opened:
    """Start jobs as `ChatService.open_all` does, for a request whose prompt came in
    ``prompt_param``; the caller's trace goes along, and what a failure has cost is noted."""
    trace = entry.record.trace
    if trace:
        jobs = [replace(job, trace=trace) for job in jobs]
    try:
        return await served.service.open_all(jobs, entry.claim, entry.record.watch)
    except ContextLengthExceeded as error:
        # Engines speak of messages, wherever the prompt came from.
        raise ContextLengthExceeded(error.message, param=prompt_param) from None
    finally:
        entry.record.settle()


async def _send_whole(send: Send, asked: Asked, entry: Entry) -> None:
    fold = asked.fold
    opened = await _open(asked, entry)
    try:
        async for event in opened:
            fold.add(event)
        headers = note_headers(opened.changes, asked.jobs[0].ignored)
        await send_json(send, asked.reply.body(fold), headers=headers)
    finally:
        entry.record.usage = fold.usage
        await opened.aclose()


async def _stream(send: Send, asked: Asked, entry: Entry, pings: Pings) -> None:
    """Send the answer as a stream. It begins once there is something of the answer, so that a
    failure before keeps its status, unless ``pings`` have begun it."""
    job, reply = asked.jobs[0], asked.reply
    changes: list[str] = list(job.changes)

    def headers() -> Mapping[str, str]:
        return note_headers(changes, job.ignored)

    def failed(error: ApiError) -> bytes:
        entry.record.fail(error)
        return reply.failed(error)

    frames = _frames(asked, entry, changes)
    await send_events(send, frames, headers=headers, done=reply.done, failed=failed, pings=pings)


async def _frames(asked: Asked, entry: Entry, changes: list[str]) -> AsyncGenerator[bytes, None]:
    """Open the answer, note in ``changes`` what was altered, and yield the frames."""
    fold, reply = asked.fold, asked.reply
    opened = await _open(asked, entry)
    changes[:] = opened.changes
    try:
        for chunk in reply.opening():
            yield reply.frame(chunk)
        async for event in opened:
            fold.add(event)
            for chunk in reply.chunks(event):
                yield reply.frame(chunk)
        for chunk in reply.closing(fold):
            yield reply.frame(chunk)
    finally:
        entry.record.usage = fold.usage
        await opened.aclose()
