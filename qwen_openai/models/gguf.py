"""A bounded reader of GGUF headers: metadata, and whether the promised tensor data is in the file.

It trusts no length: every count and size is checked against the bytes there are before anything is
allocated, so a lying or truncated file ends in one clear StartupError. It reads no tensor data and
knows nothing of tokenizers or architectures; `describe` and `tokenizer_file` make sense of it.

Source of the format: ggml's docs/gguf.md, versions 2 and 3, little endian.
"""

import os
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import BinaryIO

from qwen_openai.errors import StartupError

Scalar = str | int | float | bool
Value = Scalar | list["Value"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Limits far above any published model (Qwen3.5: 248 k tokens, 6 M characters) and far below harm.
_HEADER_BYTES = 256 * 2**20
_READ_STEP = 16 * 2**20
_KEYS = 4096
_KEY_BYTES = 65_535
_ELEMENTS = 4_000_000
_DEPTH = 3
_TENSORS = 65_536
_DIMENSIONS = 4

_STRING, _ARRAY, _BOOL = 8, 9, 7
_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "B",
    10: "Q",
    11: "q",
    12: "d",
}
# ggml type -> (elements in a block, bytes of a block), from ggml's block structures. A type that is
# not here is checked only for where it starts.
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
}


class _Broken(Exception):
    """What is wrong with the file; becomes a StartupError that names it."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor is: ``shape`` row-major (a file states it the other way round), ``kind`` as
    ggml numbers its types, ``begin`` in bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    begin: int


@dataclass(frozen=True, slots=True)
class GGUF:
    """What a GGUF file says of itself. ``file_bytes`` is the size on disk."""

    path: Path
    version: int
    metadata: dict[str, Value]
    tensors: tuple[TensorInfo, ...]
    file_bytes: int

    def text(self, key: str) -> str | None:
        """Return a string, or None when the key is absent. Raises StartupError on another type."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise unusable(self.path, f"{key} is not a string")
        return value

    def number(self, key: str) -> int | None:
        """Return a non-negative integer, or None when the key is absent. Raises StartupError."""
        value = self.metadata.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise unusable(self.path, f"{key} is not a non-negative integer")
        return value

    def strings(self, key: str) -> list[str]:
        """Return a list of strings; empty when the key is absent. Raises StartupError."""
        value = self.metadata.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise unusable(self.path, f"{key} is not a list of strings")
        return [item for item in value if isinstance(item, str)]

    def numbers(self, key: str) -> list[int]:
        """Return a list of integers; empty when the key is absent. Raises StartupError."""
        value = self.metadata.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise unusable(self.path, f"{key} is not a list of integers")
        return [item for item in value if isinstance(item, int)]


def unusable(path: Path, reason: str) -> StartupError:
    """Return the error for a GGUF file that cannot be used, with the way out."""
    return StartupError(
        f"{path} is not a usable GGUF model: {reason}.",
        fix="Delete the file and pull the model again, or name another model.",
    )


def read_gguf(path: Path) -> GGUF:
    """Read the header of ``path`` and check that the tensor data it promises is all there.

    Raises StartupError when the file cannot be read, is no GGUF of version 2 or 3, is truncated, or
    states a size that cannot be true.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as exc:
        raise StartupError(
            f"The model file {path} cannot be read: {exc.strerror or exc}.",
            fix="Check the path and its permissions.",
        ) from exc
    except _Broken as exc:
        raise unusable(path, str(exc)) from exc


def _read(path: Path, file: BinaryIO) -> GGUF:
    size = os.fstat(file.fileno()).st_size
    header = _Header(file, size)
    if header.take(4) != _MAGIC:
        raise _Broken("it does not begin with the letters GGUF")
    version = header.integer("I")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        what = "big-endian" if swapped in _VERSIONS else f"of version {version}"
        raise _Broken(f"it is {what}; versions 2 and 3, little-endian, can be read")
    tensors = header.count("tensors", _TENSORS)
    keys = header.count("metadata keys", _KEYS)
    metadata: dict[str, Value] = {}
    for _ in range(keys):
        key = header.string(_KEY_BYTES)
        if key in metadata:
            raise _Broken(f"the key {key[:80]!r} stands twice in its metadata")
        metadata[key] = header.value(header.integer("I"))
    return GGUF(path, version, metadata, _tensors(header, tensors, metadata), size)


def _tensors(header: "_Header", count: int, metadata: dict[str, Value]) -> tuple[TensorInfo, ...]:
    """Read the tensor infos; the last byte that any of them needs must be in the file."""
    found: dict[str, TensorInfo] = {}
    needed = 0
    for _ in range(count):
        name = header.string(_KEY_BYTES)
        if name in found:
            raise _Broken(f"the tensor {name[:80]!r} stands twice in it")
        dimensions = header.integer("I")
        if dimensions > _DIMENSIONS:
            raise _Broken(f"the tensor {name[:80]!r} has {dimensions} dimensions")
        shape = tuple(header.integer("Q") for _ in range(dimensions))[::-1]
        kind = header.integer("I")
        offset = header.integer("Q")
        found[name] = TensorInfo(name, shape, kind, offset)
        block, block_bytes = _BLOCKS.get(kind, (1, 0))
        needed = max(needed, offset + -(-prod(shape) // block) * block_bytes)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**20:
        raise _Broken("its general.alignment is not a possible number")
    start = -(-header.position // alignment) * alignment
    if count and start + needed > header.size:
        raise _Broken(
            f"it is truncated: its tensors need {start + needed:,} bytes, it has {header.size:,}"
        )
    return tuple(replace(each, begin=start + each.begin) for each in found.values())


class _Header:
    """A cursor over the front of a file; reads on as needed, never past what the file holds."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self.position = 0
        self._file = file
        self._buffer = b""
        self._elements = _ELEMENTS

    def take(self, length: int) -> bytes:
        """Return the next ``length`` bytes."""
        start = self.position
        self._require(start + length)
        self.position = start + length
        return self._buffer[start : self.position]

    def integer(self, code: str) -> int:
        """Return one unsigned integer of the struct format ``code``."""
        number: int = struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]
        return number

    def count(self, what: str, limit: int) -> int:
        """Return a 64-bit count that must not exceed ``limit``."""
        number = self.integer("Q")
        if number > limit:
            raise _Broken(f"it claims {number:,} {what}, more than the {limit:,} that are read")
        return number

    def string(self, limit: int = _HEADER_BYTES) -> str:
        """Return one length-prefixed UTF-8 string of at most ``limit`` bytes."""
        length = self.integer("Q")
        if length > limit:
            raise _Broken(f"it claims a string of {length:,} bytes")
        return _decode(self.take(length))

    def value(self, kind: int, depth: int = 0) -> Value:
        """Return one metadata value of GGUF type ``kind``."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(depth + 1)
        return self._scalars(kind, 1)[0]

    def _array(self, depth: int) -> list[Value]:
        if depth > _DEPTH:
            raise _Broken("its metadata is nested too deeply")
        kind = self.integer("I")
        length = self.count("elements of one list", self._elements)
        self._elements -= length
        if kind == _STRING:
            return self._strings(length)
        if kind == _ARRAY:
            return [self._array(depth + 1) for _ in range(length)]
        return self._scalars(kind, length)

    def _scalars(self, kind: int, length: int) -> list[Value]:
        if kind not in _FORMATS:
            raise _Broken(f"its metadata has a value of the unknown type {kind}")
        layout = f"<{length}{_FORMATS[kind]}"
        values = struct.unpack(layout, self.take(struct.calcsize(layout)))
        if kind == _BOOL:
            return [bool(value) for value in values]
        return list(values)

    def _strings(self, length: int) -> list[Value]:
        # One method call an element would cost half a second on a real vocabulary.
        strings: list[Value] = []
        unpack = struct.Struct("<Q").unpack_from
        self._require(self.position + 8 * length)
        buffer, position = self._buffer, self.position
        for _ in range(length):
            if position + 8 > len(buffer):
                buffer = self._require(position + 8)
            start = position + 8
            position = start + unpack(buffer, position)[0]
            if position > len(buffer):
                buffer = self._require(position)
            strings.append(_decode(buffer[start:position]))
        self.position = position
        return strings

    def _require(self, end: int) -> bytes:
        """Have the first ``end`` bytes of the file in the buffer, and return it."""
        if end > self.size:
            raise _Broken("it is truncated, or a length in its header is wrong")
        if end > _HEADER_BYTES:
            raise _Broken(f"its header is larger than {_HEADER_BYTES // 2**20} MiB")
        if end > len(self._buffer):
            step = max(end - len(self._buffer), min(_READ_STEP, self.size - len(self._buffer)))
            self._buffer += self._file.read(step)
            if end > len(self._buffer):
                raise _Broken("it became shorter while it was read")
        return self._buffer


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _Broken("its metadata holds a string that is not UTF-8") from None
