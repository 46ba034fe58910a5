"""Structured logs: one line a request, no prompt text, no keys.

`configure` is called once by the program; a library user who does not call it gets structlog's
defaults.
"""

import logging
import sys
import traceback
from typing import Protocol

import orjson
import structlog

from qwen_openai.observe.record import Record


class LogSettings(Protocol):
    """What `configure` needs of the settings."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...


def configure(settings: LogSettings) -> None:
    """Send logs to stderr: for people on a terminal, else one JSON object a line."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty()):
        structlog.configure(
            processors=[
                *shared,
                # The pretty traceback prints local variables: prompts and keys among them.
                structlog.dev.ConsoleRenderer(
                    colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
                ),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[
                *shared,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
            cache_logger_on_first_use=True,
        )
    # uvicorn logs through the standard library; what it has to say is said by us already.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


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
