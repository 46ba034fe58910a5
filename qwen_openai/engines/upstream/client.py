"""One server that speaks OpenAI's API, as the engine of its models: one attempt for each job.

Owns no connections: the session is its user's, and so is what happens after a failure. Each request
has its own deadlines, and closing an answer closes its connection at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp
import orjson

from qwen_openai.core import Event, Extra, Finish, Job, Started
from qwen_openai.engines.upstream.answer import Reader
from qwen_openai.engines.upstream.deadlines import Timeouts, Watchdog
from qwen_openai.engines.upstream.failures import Reporter
from qwen_openai.engines.upstream.kinds import ROWS, Row, kind_of
from qwen_openai.engines.upstream.request import Request, request_of
from qwen_openai.engines.upstream.tokens import Tokenizer
from qwen_openai.errors import ApiError, ContextLengthExceeded, UpstreamFailed
from qwen_openai.sse import EventTooLong, SseDecoder
from qwen_openai.upstreams import Kind, Upstream

__all__ = ["Seen", "Timeouts", "UpstreamClient"]

# No event of a model's words comes near; what is longer would only fill our memory.
_MOST_EVENT = 10 * 2**20
_MOST_ANSWER = 64 * 2**20
_MOST_ERROR = 4 * 2**20
_MOST_CHANGES = 1000
# Seconds for a question that costs a server nothing, beside those to reach it.
_AT_ONCE = 5.0
# Seconds for the last bytes of an answer whose end has come, so that the connection can be used
# again.
_TAIL = 0.02
_CHANGED = "x-qwen-openai-changed"
# What many servers send before they have read the prompt: the first word is still to come.
_NO_WORDS = (Started, Extra)
# What breaks a connection, or never makes one.
_BROKEN = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a server has shown: its ``models`` by their names there, each with its context
    in tokens if that was told, and what ``kind`` of server it is."""

    models: Mapping[str, int | None]
    kind: Kind


class UpstreamClient:
    """Talks to one server. ``kind`` may be set once it is known."""

    def __init__(
        self, upstream: Upstream, session: aiohttp.ClientSession, timeouts: Timeouts
    ) -> None:
        key = upstream.key()
        self.kind: Kind = upstream.kind
        self._base = upstream.url
        self._session = session
        self._timeouts = timeouts
        self._report = Reporter(upstream.label, key, urlsplit(upstream.url).hostname)
        self._headers = {
            "accept-encoding": "identity",
            "content-type": "application/json",
            **({"authorization": f"Bearer {key}"} if key else {}),
        }
        self._limits = aiohttp.ClientTimeout(total=None, connect=timeouts.connect)

    @property
    def _row(self) -> Row:
        return ROWS[self.kind]

    async def look(self) -> Seen:
        """Ask which models it has, which costs it nothing. Raises ApiError."""
        body = await self._ask("GET", f"{self._base}/models", None)
        listed = body.get("data") if isinstance(body, dict) else None
        if not isinstance(listed, list):
            raise self._report.failed("did not list its models as it should")
        models: dict[str, int | None] = {}
        kind: Kind = "openai"
        for each in listed:
            if isinstance(each, dict) and isinstance(name := each.get("id"), str):
                models[name] = _context(each)
                kind = kind_of(each.get("owned_by"))
        return Seen(models, kind)

    async def generate(self, job: Job, model: str) -> AsyncGenerator[Event, None]:
        """Run one choice of a job, once; ``model`` is the server's name. Raises ApiError, of which
        `failures.verdict` tells what it says of the server."""
        if job.max_total is not None:
            job = await self._bounded(job, model, job.max_total)
        request = request_of(job, model, self._row)
        answers = self._stream(job, request) if job.watched else self._plain(job, request)
        async with aclosing(answers) as events:
            async for event in events:
                yield event

    async def tokenize(self, job: Job, model: str) -> list[int]:
        """Return the ids of a job's prompt. Raises ApiError; InvalidRequest where this kind of
        server does not tell them."""
        return await self._tokenizer.tokenize(job, model)

    async def detokenize(self, ids: Sequence[int], model: str) -> list[bytes]:
        """Return the bytes of each token, as `tokenize` raises; where the server tells only those
        of all together, they stand in the first's place."""
        return await self._tokenizer.detokenize(ids, model)

    @property
    def _tokenizer(self) -> Tokenizer:
        async def ask(path: str, body: dict[str, object]) -> object:
            root = self._base.removesuffix("/v1")
            return await self._ask("POST", f"{root}{path}", orjson.dumps(body))

        return Tokenizer(ask, self._row, self._report)

    async def _bounded(self, job: Job, model: str, most: int) -> Job:
        """Leave the answer what the prompt leaves of a bound on both."""
        if self._row.tokens is None:
            return job
        prompt = len(await self.tokenize(job, model))
        if prompt >= most:
            raise ContextLengthExceeded(
                f"The prompt has {prompt} tokens, which leaves none of the {most} for an answer. "
                "Shorten it, or allow more.",
                param="messages",
            )
        limit = min(job.sampling.max_tokens or most, most - prompt)
        return replace(job, sampling=replace(job.sampling, max_tokens=limit))

    async def _stream(self, job: Job, request: Request) -> AsyncGenerator[Event, None]:
        dog = Watchdog(self._timeouts, self._report)
        response = await self._post(job, request, dog.left, dog)
        reader = Reader(job, self._report, estimate=request.estimate, changes=_changes(response))
        try:
            dog.start(response.content.set_exception)
            if response.content_type == "application/json":
                # It answers whole, whatever was asked.
                dog.waiting = True
                for event in reader.plain(await self._read(response, _MOST_ANSWER)):
                    yield event
                return
            self._expect(response, "text/event-stream")
            decoder = SseDecoder(max_event_bytes=_MOST_EVENT)
            content = response.content
            while not reader.done:
                dog.waiting = True
                data = await self._next(content)
                dog.waiting = False
                came = False
                for told in self._decoded(decoder, data):
                    events = reader.feed(told)
                    if events and isinstance(events[-1], Finish) and not content.at_eof():
                        await self._tail(content)
                    for event in events:
                        came = came or type(event) not in _NO_WORDS
                        yield event
                if came:
                    dog.heard()
                if not data:
                    reader.end()
        finally:
            dog.stop()
            _release(response)

    async def _plain(self, job: Job, request: Request) -> AsyncGenerator[Event, None]:
        response: aiohttp.ClientResponse | None = None
        try:
            # A plain answer shows nothing of itself before it is whole.
            limit = min(self._timeouts.first_token, self._timeouts.total)
            try:
                async with asyncio.timeout(limit):
                    response = await self._post(job, request)
                    self._expect(response, "application/json")
                    body = await self._read(response, _MOST_ANSWER)
            except TimeoutError:
                raise self._report.silent("did not answer", limit) from None
        finally:
            if response is not None:
                _release(response)
        reader = Reader(job, self._report, estimate=request.estimate, changes=_changes(response))
        for event in reader.plain(body):
            yield event

    async def _post(
        self, job: Job, request: Request, limit: float | None = None, dog: Watchdog | None = None
    ) -> aiohttp.ClientResponse:
        """Send a request and wait for the answer's head, for at most ``limit`` seconds. Raises what
        an answer without success means."""
        headers = {**self._headers, "x-request-id": job.id}
        if job.trace:
            headers["traceparent"] = job.trace
        try:
            async with asyncio.timeout(limit):
                response = await self._send(
                    "POST", self._base + request.path, request.body, headers
                )
                try:
                    await self._succeed(response)
                except BaseException:
                    response.close()
                    raise
        except TimeoutError:
            assert dog is not None  # noqa: S101  # who gives a limit gives what watches it
            raise dog.expired() from None
        return response

    async def _ask(self, method: str, url: str, body: bytes | None) -> object:
        """Ask for something that costs nothing; return the JSON of the answer."""
        response: aiohttp.ClientResponse | None = None
        limit = self._timeouts.connect + _AT_ONCE
        try:
            async with asyncio.timeout(limit):
                response = await self._send(method, url, body, self._headers)
                await self._succeed(response)
                read = await self._read(response, _MOST_ANSWER)
        except TimeoutError:
            raise self._report.silent("did not answer", limit) from None
        finally:
            if response is not None:
                _release(response)
        try:
            return orjson.loads(read)
        except orjson.JSONDecodeError:
            raise self._report.failed("sent an answer that is no JSON") from None

    async def _send(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        try:
            return await self._session.request(
                method, url, data=body, headers=headers, timeout=self._limits, allow_redirects=False
            )
        except aiohttp.ServerTimeoutError as error:
            raise self._report.of_transport(error) from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):  # our own deadline's, whoever set it
                raise
            raise self._report.of_transport(error) from None
        except ValueError:
            what = "could not be asked: its api_key or its url is nothing that HTTP can carry"
            raise self._report.failed(what) from None

    async def _succeed(self, response: aiohttp.ClientResponse) -> None:
        """Raise what an answer says that has not the status 200 or cannot be read."""
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            raise self._report.failed(f"packed its answer ({encoding[:16]}), unasked")
        if response.status == 200:
            return
        body = b""
        if response.status in (400, 413, 422):
            # It is the caller's fault, whether or not what is said of it can be read: servers are
            # known that repeat the whole request.
            with contextlib.suppress(UpstreamFailed):
                body = await self._read(response, _MOST_ERROR)
        headers = {name.lower(): value for name, value in response.headers.items()}
        raise self._report.of_status(response.status, headers, body)

    def _expect(self, response: aiohttp.ClientResponse, kind: str) -> None:
        """Refuse a page of a proxy, say, in an answer's place."""
        if "content-type" in response.headers and not response.content_type.endswith(
            kind.rpartition("/")[2]
        ):
            raise self._report.failed(f"answered with {response.content_type[:40]}, not {kind}")

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while data := await self._next(response.content):
            parts.append(data)
            size += len(data)
            if size > most:
                raise self._report.failed("sent an answer that is too long")
        return b"".join(parts)

    async def _next(self, content: aiohttp.StreamReader) -> bytes:
        """Return what has come, waiting for it; b"" at the end."""
        try:
            return await content.readany()
        except ApiError:
            raise
        except _BROKEN as error:
            if type(error) is TimeoutError:  # our own deadline's
                raise
            raise self._report.of_transport(error) from None

    async def _tail(self, content: aiohttp.StreamReader) -> None:
        """Take what stands behind the end, if it comes at once."""
        try:
            async with asyncio.timeout(_TAIL):
                while await content.readany():
                    pass
        except (ApiError, *_BROKEN):
            return  # the answer is whole; only this connection is not used again

    def _decoded(self, decoder: SseDecoder, data: bytes) -> list[str]:
        try:
            return decoder.feed(data) if data else decoder.flush()
        except EventTooLong:
            raise self._report.failed("sent an event of more than 10 MB") from None


def _release(response: aiohttp.ClientResponse) -> None:
    """Keep the connection if all of the answer was read, else close it."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()


def _changes(response: aiohttp.ClientResponse) -> tuple[str, ...]:
    """Return what a server like this one says that it altered, as far as a header can hold it."""
    told = response.headers.get(_CHANGED, "")
    if not told:
        return ()
    changes = told[:_MOST_CHANGES].split("; ")
    return tuple(each for each in changes if each.isascii() and each.isprintable())


def _context(model: Mapping[str, object]) -> int | None:
    """Return a model's context as vLLM, SGLang (`max_model_len`) and llama.cpp tell it."""
    meta = model.get("meta")
    for members, name in (
        (model, "max_model_len"),
        (meta, "n_ctx"),
        (meta, "n_ctx_train"),
        (model, "context_length"),
        (model, "context_window"),
    ):
        told = members.get(name) if isinstance(members, Mapping) else None
        if type(told) is int and told > 0:
            return told
    return None
