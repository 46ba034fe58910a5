"""Structured logs: one line a request, no prompt text, no keys.

`configure` is called once by the program; a library user who does not call it gets structlog's
defaults.
"""

import logging
import os
import sys
import traceback
from typing import BinaryIO, Protocol, cast

import orjson
import structlog

from qwen_openai.observe.outlet import Outlet
from qwen_openai.observe.record import Record


class LogSettings(Protocol):
    """What `configure` needs of the settings."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...


def configure(settings: LogSettings) -> None:
    """Send logs to stderr: for people on a terminal, else one JSON object a line.

    Where stderr is closed, full or not read, lines are lost and nothing else happens.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    descriptor = _stderr()
    on_terminal = os.isatty(descriptor)
    if settings.log_format == "console" or (settings.log_format == "auto" and on_terminal):
        rendering: list[structlog.typing.Processor] = [
            # The pretty traceback prints local variables: prompts and keys among them.
            structlog.dev.ConsoleRenderer(
                colors=on_terminal, exception_formatter=structlog.dev.plain_traceback
            ),
            _encoded,
        ]
    else:
        rendering = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(file=cast(BinaryIO, Outlet(descriptor))),
        cache_logger_on_first_use=True,
    )
    _take_over(level)


def _stderr() -> int:
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        # Somebody has put another thing in its place, or closed it.
        return 2


def _encoded(_: object, __: str, line: object) -> bytes:
    """Return what the console's renderer made, as bytes."""
    return str(line).encode("utf-8", "backslashreplace")


class _Libraries(logging.Handler):
    """What libraries say through the standard library's logging, as lines like ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. A traceback is cut to where it happened: what it says may quote."""
        log = structlog.get_logger("qwen_openai.libraries")
        more: dict[str, object] = {}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            more["error"] = type(error).__name__
            more["frames"] = frames_of(error)
        # An asyncio message goes on with the repr of a task, a future or an exception.
        said = record.getMessage().partition("\n")[0]
        log.log(record.levelno, printable(said, 300), logger=record.name, **more)


def _take_over(level: int) -> None:
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Libraries)]:
        root.removeHandler(handler)
    # Debugging lines of libraries hold what they send and get.
    root.addHandler(_Libraries(max(level, logging.WARNING)))
    # uvicorn logs through the standard library; what it has to say is said by us already.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def frames_of(error: BaseException) -> list[str]:
    """Return where it broke, without the message: that may quote the request."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def traced(error: BaseException) -> str:
    """The traceback of an exception, for a log line's `stack`.

    With `exc_info` it is up to who renders the line: structlog's own default, which a library user
    has, prints local variables, prompts and tensors among them.
    """
    return "".join(traceback.format_exception(error))


def printable(text: str, limit: int = 200) -> str:
    """Text of a client made safe for a log line: no control characters, bounded."""
    return text[:limit].encode("unicode_escape").decode("ascii")


def request_line(record: Record, path: str) -> dict[str, object]:
    """Return what the one line of a request says; ``path`` is as `printable` made it. What a
    request did not come to is left out."""
    line: dict[str, object] = {
        "method": record.method,
        "path": path,
        "status": record.status,
        "outcome": record.outcome,
        "ms": round(record.duration * 1000, 1),
        "request_id": record.request_id,
    }
    if record.route not in (path, ""):
        line["route"] = record.route
    if record.key:
        line["key"] = record.key
    if record.error:
        line["error"] = printable(record.error, 80)
    if record.trace:
        line["trace_id"] = record.trace[3:35]
    if record.model:
        _add_generation(line, record)
    return line


def _add_generation(line: dict[str, object], record: Record) -> None:
    line["model"] = record.model
    line["stream"] = record.streams
    if record.admitted:
        line["queue_ms"] = round(record.queued * 1000, 1)
    if record.attempts:
        line["upstream"] = record.upstream
        line["attempts"] = record.attempts
    if record.first_token is not None:
        line["ttft_ms"] = round(record.first_token * 1000, 1)
    usage = record.usage
    if usage is not None:
        line["prompt_tokens"] = usage.prompt_tokens
        line["completion_tokens"] = usage.completion_tokens
        if usage.cached_tokens:
            line["cached_tokens"] = usage.cached_tokens
