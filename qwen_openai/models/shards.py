"""The weight files of a directory: which there are, and what a safetensors file says of itself.

Reads headers only, needs no torch and believes no offset. Knows no tensor names.

Source: the format as described in the README of the safetensors project; the index files as
transformers writes them.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, Literal

import orjson

from qwen_openai.errors import StartupError
from qwen_openai.models.document import AGAIN, Document, read_document

# The format's own limit.
_MOST_HEADER_BYTES = 100_000_000
_MOST_DIMENSIONS = 8
ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True, slots=True)
class Shards:
    """The files that make up the weights, in the order of their names."""

    files: tuple[Path, ...]
    format: Literal["safetensors", "bin"]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a safetensors file: ``dtype`` in the format's own words, ``begin`` and ``end`` in
    bytes from the start of the file, row-major."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def find_shards(folder: Path) -> Shards:
    """Return the weights in ``folder``: safetensors where there are any, else PyTorch's pickles.

    Raises StartupError when there are none, and when one that the index names is missing.
    """
    kinds: tuple[tuple[Literal["safetensors", "bin"], str], ...] = (
        ("safetensors", "model.safetensors"),
        ("bin", "pytorch_model.bin"),
    )
    for kind, single in kinds:
        if (index := folder / f"{single}.index.json").is_file():
            return Shards(_named(read_document(index)), kind)
        if (folder / single).is_file():
            return Shards((folder / single,), kind)
    raise StartupError(
        f"{folder} holds no weights: neither model.safetensors nor pytorch_model.bin, nor an index"
        " of several such files.",
        fix=AGAIN,
    )


def _named(index: Document) -> tuple[Path, ...]:
    places = index.within("weight_map")
    if places is None or not places.values:
        index.refuse("it has no weight_map that names the files of the weights")
    names = set()
    for name in places.values.values():
        if not isinstance(name, str) or name in {"", ".", ".."} or set("/\\\0") & set(name):
            index.refuse(f"it names the file {str(name)[:60]!r}, which is no plain file name")
        names.add(name)
    files = tuple(index.path.with_name(name) for name in sorted(names))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if missing[4:] else "")
        raise StartupError(
            f"{index.path.parent} is not complete: {index.path.name} names {len(files)} files, and"
            f" {len(missing)} of them are missing ({shown}).",
            fix=AGAIN,
        )
    return files


def read_header(path: Path) -> dict[str, Stored]:
    """Return what a safetensors file holds, by name.

    Raises StartupError when the file is truncated, has bytes that belong to no tensor, or is at
    odds with itself.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            header, start = _header(path, file, size)
    except OSError as exc:
        raise StartupError(f"{path} cannot be read: {exc.strerror or exc}.", fix=AGAIN) from exc
    tensors = {
        name: _stored(path, name, entry, start)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    end = start
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if stored.begin != end:
            raise damaged(path, f"its tensor {name!r} does not begin where the last one ends")
        end = stored.end
    if end != size:
        raise damaged(path, f"it should have {end} bytes and has {size}")
    return tensors


def _header(path: Path, file: BinaryIO, size: int) -> tuple[Mapping[str, object], int]:
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(_MOST_HEADER_BYTES, size - 8):
        raise damaged(path, "it does not begin as a safetensors file does, or is cut off")
    try:
        header = orjson.loads(file.read(length))
    except orjson.JSONDecodeError:
        header = None
    if not isinstance(header, dict):
        raise damaged(path, "its header cannot be read")
    return header, 8 + length


def _stored(path: Path, name: str, entry: object, start: int) -> Stored:
    document = Document(path, entry if isinstance(entry, dict) else {})
    dtype, shape = document.text("dtype"), _numbers(document.values.get("shape"))
    offsets = _numbers(document.values.get("data_offsets"))
    if dtype not in ITEM_BYTES or shape is None or offsets is None or len(offsets) != 2:
        raise damaged(path, f"its tensor {name!r} is not described as the format asks")
    begin, end = offsets
    if end - begin != prod(shape) * ITEM_BYTES[dtype]:
        raise damaged(path, f"its tensor {name!r} has another size than its shape asks")
    return Stored(dtype, shape, start + begin, start + end)


def _numbers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > _MOST_DIMENSIONS:
        return None
    if not all(type(each) is int and each >= 0 for each in value):
        return None
    return tuple(value)


def size_and_dtype(
    shards: Shards, config: Document, is_weight: Callable[[str], bool] = lambda _: True
) -> tuple[int, str]:
    """Return the bytes of the weights, and the type that most of them have: "bfloat16", "float16"
    or "float32". Of pickles, which tell nothing unread, the files' size and the config's word.
    Tensors whose name ``is_weight`` denies are not counted.

    Raises StartupError for weights of another type.
    """
    if shards.format == "bin":
        return sum(file.stat().st_size for file in shards.files), stated_dtype(config)
    counted: Counter[str] = Counter()
    for file in shards.files:
        for name, stored in read_header(file).items():
            if is_weight(name):
                counted[stored.dtype] += stored.end - stored.begin
    most = counted.most_common(1)[0][0] if counted else "none"
    if most not in DTYPES:
        raise StartupError(
            f"The weights in {config.path.parent} are of the type {most}, and only BF16, F16 and"
            " F32 are served.",
            fix="Take the model's variant that is not quantised, or a GGUF of it.",
        )
    return counted.total(), DTYPES[most]


def stated_dtype(config: Document) -> str:
    """Return what a config says; Qwen-1's has a flag for each type, of which one is true."""
    stated = config.text("torch_dtype") or config.text("dtype")
    if stated is not None and stated in DTYPES.values():
        return stated
    flags = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    return next((dtype for flag, dtype in flags.items() if config.flag(flag, False)), "bfloat16")


def damaged(path: Path, reason: str) -> StartupError:
    """Say that a weight file is not sound; ``reason`` follows "PATH is damaged: "."""
    return StartupError(f"{path} is damaged: {reason}.", fix=AGAIN)
