"""The wire between the gateway and its engine process: length-prefixed frames on a socket.

Sans I/O and standard library only, since the child imports it. It does not know what the payloads
mean; `child` and `process` do.

A frame is a nine-byte header, little-endian: payload length (uint32), kind (uint8), request number
(uint32, 0 where there is none), then the payload.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

_HEADER = struct.Struct("<IBI")

MAX_PAYLOAD = 256 * 2**20
"""A longer frame means that the two sides have lost step."""


class Kind(IntEnum):
    """What a frame says. The first three go to the child, the others come from it."""

    LOAD = 1
    """JSON: the child's configuration; first frame, once."""
    SUBMIT = 2
    """JSON: the body of a completion request."""
    CANCEL = 3
    """No payload: stop the request, or drop it if it has not begun."""

    READY = 16
    """No payload: the model is loaded."""
    FAILED = 17
    """JSON {"reason", "detail"}: the model cannot be loaded; the child ends."""
    CHUNK = 18
    """JSON: one chunk of an answer as llama.cpp made it, or its error."""
    END = 19
    """Nothing more comes for the request. Payload: empty, or why it broke off, as text."""
    HEARTBEAT = 20
    """No payload: the child's interpreter is alive."""


class Frame(NamedTuple):
    kind: Kind
    request: int
    payload: bytes


class FrameError(Exception):
    """The bytes are no frames: the peer is not ours, or one side has a bug."""


def encode(kind: Kind, request: int = 0, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return _HEADER.pack(len(payload), kind, request) + payload


class Decoder:
    """Bytes in, in any pieces; whole frames out, in order."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now. Raises FrameError."""
        data = self._pending + data if self._pending else data
        frames: list[Frame] = []
        start, size = 0, len(data)
        while size - start >= _HEADER.size:
            length, kind, request = _HEADER.unpack_from(data, start)
            if length > MAX_PAYLOAD:
                raise FrameError(f"a frame of {length} bytes")
            end = start + _HEADER.size + length
            if end > size:
                break
            try:
                frames.append(Frame(Kind(kind), request, data[start + _HEADER.size : end]))
            except ValueError:
                raise FrameError(f"a frame of unknown kind {kind}") from None
            start = end
        self._pending = data[start:]
        return frames
