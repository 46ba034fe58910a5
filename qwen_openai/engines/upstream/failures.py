"""What can go wrong with another server, as errors of ours, and what each says of that server.

Pure but for the classes of aiohttp's errors. What a server says of itself is not for our callers:
keys, addresses and URLs are cut out of its words.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time

import aiohttp
import orjson

from qwen_openai.errors import (
    MOST_RETRY_AFTER,
    ApiError,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    ModelGone,
    PayloadTooLarge,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
)

_MOST_TEXT = 500

_CONTEXT = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context (?:length|window)"
    r"|exceeds? the (?:available |model'?s? ?)?(?:maximum )?context|prompt is too long"
    r"|longer than the (?:model'?s )?(?:maximum )?context"
    r"|input tokens exceed|maximum (?:model|allowed|input) length|max_model_len",
    re.IGNORECASE,
)
_SECRETS = (
    (re.compile(r"(?s)\bTraceback \(most recent call last\).*"), "[removed]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;]+"), r"\1 [removed]"),
    (
        re.compile(
            r"(?i)\b((?:api[-_ ]?key|authorization|token|secret|password)\w*[\"']?\s*[:=]\s*[\"']?)"
            r"[^\s\"',;)]{6,}"
        ),
        r"\1[removed]",
    ),
    (re.compile(r"\b(?:sk|pk|rk|hf|gsk|xai)[-_][A-Za-z0-9_*.-]{6,}"), "[removed]"),
    (re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://[^\s\"'<>]+"), "[address]"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b"), "[address]"),
    (
        re.compile(r"\[?(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4}\]?(?::\d+)?"),
        "[address]",
    ),
    (
        re.compile(
            r"\[?(?<![\w:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{1,4})*::[0-9A-Fa-f:]*\]?(?::\d+)?(?!\w)"
        ),
        "[address]",
    ),
    (re.compile(r"(?i)\blocalhost(?::\d{1,5})?\b"), "[address]"),
    (
        # Where a server keeps its files, in the directories that servers have.
        re.compile(
            r"(?<![\w.])/(?:home|root|usr|opt|var|etc|tmp|mnt|media|srv|data|app|workspace|work"
            r"|models?|vllm[\w-]*|sgl[\w-]*|dev|proc|run|Users|private|content|cache"
            r"|\.[\w-]+)(?:/[^\s\"'<>:;,)\]]*)+"
        ),
        "[path]",
    ),
    (re.compile(r"\b[A-Za-z]:\\[^\s\"'<>:;,)\]]+"), "[path]"),
    (re.compile(r"\b[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*:\d{2,5}\b"), "[address]"),
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_PARAM = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an error says of an upstream: whether another one may do the job (``elsewhere``),
    whether it counts against this one (``blames``), and how many seconds it asked to be left alone
    (``pause``, at most 120)."""

    elsewhere: bool
    blames: bool
    pause: float | None = None


_OURS = Verdict(elsewhere=False, blames=False)


def verdict(error: Exception) -> Verdict:
    """Return what an error that `UpstreamClient` raised says of the server."""
    if isinstance(error, UpstreamBusy):
        return Verdict(elsewhere=True, blames=False, pause=error.retry_after)
    if isinstance(error, ModelGone):
        return Verdict(elsewhere=True, blames=False)
    if isinstance(error, EngineUnavailable):
        return Verdict(elsewhere=True, blames=True, pause=error.retry_after)
    if isinstance(error, UpstreamFailed | UpstreamTimeout):
        return Verdict(elsewhere=True, blames=True)
    return _OURS


@dataclass(frozen=True, slots=True)
class Reporter:
    """Makes errors about one server, which is called ``name``; ``key`` and ``host`` are what never
    gets out."""

    name: str
    key: str | None = None
    host: str | None = None

    def scrubbed(self, text: str) -> str:
        """Return a server's words without secrets, addresses and control characters, cut off."""
        if self.key:
            text = text.replace(self.key, "[removed]")
        text = text[: _MOST_TEXT * 4]
        if self.host and self.host != self.name:
            text = re.sub(rf"(?i)(?<![\w.-]){re.escape(self.host)}(?![\w-])", "[address]", text)
        for pattern, instead in _SECRETS:
            text = pattern.sub(instead, text)
        text = _CONTROLS.sub(" ", text).strip()
        return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"

    def failed(self, what: str) -> UpstreamFailed:
        """The server did something wrong: ``what``, in our own words."""
        return UpstreamFailed(f"The upstream {self.name!r} {what}. Try again.")

    def silent(self, what: str, seconds: float) -> UpstreamTimeout:
        """The server took too long to do ``what``."""
        return UpstreamTimeout(
            f"The upstream {self.name!r} {what} within {seconds:g} s. Try again, or ask for less."
        )

    def of_transport(self, error: Exception) -> ApiError:
        """Return what an error of the connection means."""
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            return UpstreamTimeout(
                f"The upstream {self.name!r} could not be reached in time. Try again."
            )
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            return self.failed("could not be reached: its TLS certificate or handshake is bad")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return self.failed("could not be reached: its host name is not known")
        if isinstance(error, aiohttp.ClientConnectorError):
            return self.failed("could not be reached: it refused the connection")
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
            return self.failed("hung up before its answer was complete")
        if isinstance(error, OSError | aiohttp.ClientConnectionError):
            return self.failed("broke the connection")
        return self.failed("did not speak HTTP as it should")

    def of_status(self, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
        """Return what an answer that is no 200 means."""
        told = _told(body)
        pause = retry_after(headers)
        if status == 429:
            return UpstreamBusy(
                f"The upstream {self.name!r} has no room for more requests now. Try again later.",
                retry_after=1.0 if pause is None else pause,
            )
        if status in (401, 403):
            return self.failed(
                f"refused the gateway credentials ({status}); its operator has to mend them"
            )
        if status == 404:
            return ModelGone(
                f"The upstream {self.name!r} does not have the model or the endpoint. Try again, "
                "or ask for another model."
            )
        if status == 503:
            return EngineUnavailable(
                f"The upstream {self.name!r} is not available now. Try again later.",
                retry_after=1.0 if pause is None else pause,
            )
        if status in (400, 413, 422):
            return self._invalid(status, told)
        return self.failed(f"answered with the status {status}")

    def of_event(self, error: object) -> ApiError:
        """Return what an error that came in an answer of status 200 means."""
        told = _Told.of(error)
        if told.status in (400, 413, 422) or told.is_about_context:
            return self._invalid(told.status or 400, told)
        if told.status in (429, 503):
            return self.of_status(told.status, {}, b"")
        said = self.scrubbed(told.message)
        return UpstreamFailed(
            f"The upstream {self.name!r} failed while it answered"
            + (f": {said}" if said else ". Try again.")
        )

    def _invalid(self, status: int, told: "_Told") -> ApiError:
        message = self.scrubbed(told.message)
        message = message or f"The upstream {self.name!r} refused the request ({status})."
        if told.is_about_context:
            return ContextLengthExceeded(message, param=self._clean(told.param))
        if status == 413:
            return PayloadTooLarge(message)
        return InvalidRequest(message, param=self._clean(told.param), code=self._clean(told.code))

    def _clean(self, name: str | None) -> str | None:
        """Return a name unless it holds what never gets out."""
        return name if name is None or self.scrubbed(name) == name else None


@dataclass(frozen=True, slots=True)
class _Told:
    """What an error body says, whatever its shape."""

    message: str = ""
    param: str | None = None
    code: str | None = None
    kind: str = ""
    status: int = 0

    @classmethod
    def of(cls, error: object) -> "_Told":
        """Read the value of `error`, or a whole body that is flat."""
        if isinstance(error, str):
            return cls(error)
        if not isinstance(error, dict):
            return cls()
        message = error.get("message") or error.get("detail") or error.get("msg") or ""
        param, code, kind = error.get("param"), error.get("code"), error.get("type")
        number = code if isinstance(code, int) else error.get("status")
        return cls(
            message if isinstance(message, str) else _json(message),
            param if isinstance(param, str) and _PARAM.fullmatch(param) else None,
            code if isinstance(code, str) and _CODE.fullmatch(code) else None,
            kind if isinstance(kind, str) else "",
            number if isinstance(number, int) else 0,
        )

    @property
    def is_about_context(self) -> bool:
        return bool(_CONTEXT.search(f"{self.code} {self.kind} {self.message}"))


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError):
        return ""


def _told(body: bytes) -> _Told:
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _Told()  # a page of a proxy, say: nothing for our callers
    if isinstance(read, dict) and read.get("error"):
        return _Told.of(read["error"])
    return _Told.of(read)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `retry-after-ms` or `retry-after` (seconds or a date, RFC 9110) ask
    for, between 0 and 120; None without them."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        told = headers.get(name)
        if not told:
            continue
        try:
            seconds = float(told) / scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(told).timestamp() - time()
            except (ValueError, TypeError, OverflowError):
                continue
        if seconds == seconds:  # no NaN
            return min(max(seconds, 0.0), MOST_RETRY_AFTER)
    return None
