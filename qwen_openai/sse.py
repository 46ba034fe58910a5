"""Server-sent events, both directions: values to frames, bytes to the data of events. Sans I/O.

Knows the format (https://html.spec.whatwg.org/multipage/server-sent-events.html), nothing of what
is in the events.
"""

import re

import orjson

DONE = b"data: [DONE]\n\n"

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


def frame(data: object) -> bytes:
    """Return the event whose data is a value as JSON."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def comment(text: str) -> bytes:
    """Return a comment, which clients skip: it keeps a silent connection open."""
    return b": " + " ".join(text.splitlines()).encode("utf-8", "replace") + b"\n\n"


class EventTooLong(ValueError):
    """An event is longer than the decoder was told to hold."""


class SseDecoder:
    """Feed bytes in any split, get the data of each event as it is complete.

    Lines may end in LF, CR or CRLF; several data lines are joined by LF; comments and other fields
    are skipped. Text that is not UTF-8 is replaced, as the standard says.
    """

    def __init__(self, *, max_event_bytes: int = 16 * 2**20) -> None:
        self._limit = max_event_bytes
        self._buffer = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._skip_newline = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of the events that `chunk` completes. Raises EventTooLong."""
        if self._skip_newline and chunk:
            self._skip_newline = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        scanned = len(self._buffer)
        self._buffer += chunk
        events: list[str] = []
        start = 0
        for end in _LINE_END.finditer(self._buffer, scanned):
            self._line(bytes(self._buffer[start : end.start()]), events)
            start = end.end()
        self._skip_newline = start == len(self._buffer) and chunk.endswith(b"\r")
        del self._buffer[:start]
        if len(self._buffer) + self._size > self._limit:
            raise EventTooLong(f"an event is longer than {self._limit} bytes")
        return events

    def flush(self) -> list[str]:
        """Return the event that the end of the stream completes, if any: servers are known to leave
        out the last empty line."""
        events: list[str] = []
        if self._buffer:
            line = bytes(self._buffer)
            self._buffer.clear()
            self._line(line, events)
        self._line(b"", events)
        return events

    def _line(self, line: bytes, events: list[str]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append(b"\n".join(self._data).decode("utf-8", "replace"))
                self._data.clear()
                self._size = 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1
