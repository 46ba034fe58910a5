"""One file of weights in, one safetensors file out: tensors renamed and cut while they are copied.

Out of safetensors, bytes are copied in blocks, and no tensor is ever whole in memory; PyTorch's own
files are mapped. Knows names only as the table it is given.

Source of the format: the README of the safetensors project.
"""

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import orjson

from qwen_openai.errors import StartupError
from qwen_openai.models.document import AGAIN
from qwen_openai.models.qwen1.mapping import Renamed
from qwen_openai.models.qwen1.weights import load_pickle
from qwen_openai.models.shards import DTYPES, ITEM_BYTES, Shards, Stored, damaged, read_header

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 8 * 2**20


class Source(Protocol):
    """A file of tensors. ``held_bytes`` is the most of them that lay in memory at once."""

    held_bytes: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    def dtype(self, name: str) -> str:
        """The type in safetensors' words: BF16, F16 or F32."""

    def blocks(self, name: str, begin: int, end: int) -> Iterator[bytes | memoryview]:
        """The bytes ``begin`` to ``end`` of a tensor, row-major, piece by piece."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise StartupError, naming ``path``, where it cannot be read: what the disk refuses
    otherwise is said of the place that is written to."""
    try:
        yield
    except OSError as exc:
        raise StartupError(f"{path} cannot be read: {exc.strerror or exc}.", fix=AGAIN) from exc


@contextmanager
def open_source(file: Path, shards: Shards, wanted: Container[str]) -> Iterator[Source]:
    """Open one of the files of a checkpoint, for the tensors that are ``wanted``.

    Raises StartupError when it cannot be read, is damaged or is refused.
    """
    if shards.format == "bin":
        yield _Pickle(load_pickle(file, wanted))
        return
    header = read_header(file)
    for name, stored in header.items():
        if name in wanted and stored.dtype not in DTYPES:
            raise damaged(file, f"its tensor {name!r} is of the type {stored.dtype}")
    with reading(file):
        opened = file.open("rb", buffering=0)
    with opened:
        yield _Safetensors(file, opened, header)


def write_shard(
    path: Path, source: Source, table: Mapping[str, Renamed], told: Callable[[int], None]
) -> int:
    """Write the tensors of ``table`` that ``source`` has; return their bytes, telling them.

    Raises OSError when the disk refuses.
    """
    planned = list(_plan(source, table))
    header = _header(planned)
    written = 0
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for part in planned:
            for block in source.blocks(part.name, part.begin, part.end):
                file.write(block)
                written += len(block)
                told(written)
        file.flush()
        os.fsync(file.fileno())
    return written


@dataclass(frozen=True, slots=True)
class _Part:
    """The bytes ``begin`` to ``end`` of the tensor ``name``, to be called ``target``."""

    name: str
    begin: int
    end: int
    target: str
    dtype: str
    shape: tuple[int, ...]


def _plan(source: Source, table: Mapping[str, Renamed]) -> Iterator[_Part]:
    # The widest numbers first keeps all of them aligned.
    names = sorted(
        (name for name in source.shapes if name in table),
        key=lambda name: -ITEM_BYTES[source.dtype(name)],
    )
    for name in names:
        renamed, dtype = table[name], source.dtype(name)
        size = ITEM_BYTES[dtype]
        for each in renamed.part_shape:
            size *= each
        for number, target in enumerate(renamed.targets):
            begin = number * size
            yield _Part(name, begin, begin + size, target, dtype, renamed.part_shape)


def _header(parts: Iterable[_Part]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for part in parts:
        end = at + part.end - part.begin
        entries[part.target] = {
            "dtype": part.dtype,
            "shape": part.shape,
            "data_offsets": [at, end],
        }
        at = end
    header = orjson.dumps(entries)
    return header + b" " * (-len(header) % 8)


class _Safetensors:
    def __init__(self, path: Path, file: FileIO, header: Mapping[str, Stored]) -> None:
        self._path = path
        self._file = file
        self._header = header
        self._buffer = bytearray()
        self.held_bytes = 0

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.shape for name, stored in self._header.items()}

    def dtype(self, name: str) -> str:
        return self._header[name].dtype

    def blocks(self, name: str, begin: int, end: int) -> Iterator[memoryview]:
        self._buffer = self._buffer or bytearray(_BLOCK)
        self.held_bytes = max(self.held_bytes, min(_BLOCK, end - begin))
        with reading(self._path):
            self._file.seek(self._header[name].begin + begin)
        left = end - begin
        while left:
            with reading(self._path):
                count = self._file.readinto(memoryview(self._buffer)[: min(_BLOCK, left)])
            if not count:
                raise damaged(self._path, "it became shorter while it was read")
            yield memoryview(self._buffer)[:count]
            left -= count


class _Pickle:
    def __init__(self, tensors: "dict[str, Tensor]") -> None:
        self._tensors = tensors
        self.held_bytes = sum(tensor.nbytes for tensor in tensors.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def dtype(self, name: str) -> str:
        stated = str(self._tensors[name].dtype).removeprefix("torch.")
        return next(short for short, dtype in DTYPES.items() if dtype == stated)

    def blocks(self, name: str, begin: int, end: int) -> Iterator[memoryview]:
        import torch

        content = self._tensors[name].contiguous().view(-1).view(torch.uint8)
        for at in range(begin, end, _BLOCK):
            yield content[at : min(at + _BLOCK, end)].numpy().data
