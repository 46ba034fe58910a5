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
