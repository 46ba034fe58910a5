"""Tensors of a GGUF into safetensors files, hashed while they are written.

Only a few pieces of a tensor are in memory at a time. Knows neither what a model is nor where the
folder goes.

Source of the format: the README of the safetensors project; the index as transformers writes it.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import orjson

from qwen_openai.models.dequantise.names import Place
from qwen_openai.models.dequantise.numbers import Numbers, Source
from qwen_openai.models.describe import write_whole
from qwen_openai.models.progress import after
from qwen_openai.models.shards import ITEM_BYTES

_SHARD_BYTES = 4 * 10**9
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Part:
    """Some elements of a tensor, to be called ``target``; ``size`` in bytes as written."""

    numbers: Numbers
    first: int
    last: int
    target: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return (self.last - self.first) * ITEM_BYTES[self.numbers.dtype]


def parts_of(numbers: Numbers, place: Place) -> Iterator[Part]:
    """Yield what is to be written of a tensor."""
    size = prod(place.part_shape)
    for number in range(place.parts):
        target = place.target.format(number)
        yield Part(numbers, number * size, (number + 1) * size, target, place.part_shape)


def write_weights(
    folder: Path,
    source: Source,
    parts: Sequence[Part],
    told: Callable[[int], None],
    shard_bytes: int = _SHARD_BYTES,
) -> dict[str, str]:
    """Write all ``parts`` into ``folder``, in files of about ``shard_bytes``, with an index where
    there are several; return the SHA-256 of each file, telling the bytes of all.

    Raises OSError when the disk refuses, StartupError when the source does.
    """
    shards = list(_shards(parts, shard_bytes))
    hashes: dict[str, str] = {}
    places: dict[str, str] = {}
    done = 0
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        name = name if len(shards) > 1 else "model.safetensors"
        hashes[name] = _write(folder / name, source, shard, after(done, told))
        done += sum(part.size for part in shard)
        places |= {part.target: name for part in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": done}, "weight_map": dict(sorted(places.items()))}
        hashes |= write_documents(folder, {_INDEX: index})
    return hashes


def write_documents(folder: Path, documents: Mapping[str, object]) -> dict[str, str]:
    """Write JSON, or bytes as they are, by file name; return the SHA-256 of each."""
    hashes: dict[str, str] = {}
    for name, document in documents.items():
        raw = (
            document
            if isinstance(document, bytes)
            else orjson.dumps(document, option=orjson.OPT_INDENT_2)
        )
        write_whole(folder / name, raw)
        hashes[name] = hashlib.sha256(raw).hexdigest()
    return hashes


def _shards(parts: Sequence[Part], most: int) -> Iterator[list[Part]]:
    shard: list[Part] = []
    size = 0
    for part in parts:
        if shard and size + part.size > most:
            yield shard
            shard, size = [], 0
        shard.append(part)
        size += part.size
    yield shard


def _write(path: Path, source: Source, shard: Sequence[Part], told: Callable[[int], None]) -> str:
    # The widest numbers first keeps all of them aligned.
    ordered = sorted(shard, key=lambda part: -ITEM_BYTES[part.numbers.dtype])
    header = _header(ordered)
    digest = hashlib.sha256()
    done = 0
    with path.open("wb") as file:
        for block in (len(header).to_bytes(8, "little"), header):
            file.write(block)
            digest.update(block)
        for block in source.pieces((part.numbers, part.first, part.last) for part in ordered):
            file.write(block)
            digest.update(block)
            done += len(block)
            told(done)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(parts: Sequence[Part]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for part in parts:
        entries[part.target] = {
            "dtype": part.numbers.dtype,
            "shape": part.shape,
            "data_offsets": [at, at + part.size],
        }
        at += part.size
    header = orjson.dumps(entries)
    return header + b" " * (-len(header) % 8)
