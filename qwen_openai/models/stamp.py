"""The proof, beside a model's files, that they were verified: sizes, times and SHA-256 of each.

A file whose size and modification time are those of the stamp is taken as verified, which makes a
start cheap; any other is hashed again. Knows nothing of where files come from.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from qwen_openai.models.progress import after

FORMAT = 1
_NAME = "stamp.json"
_BLOCK = 4 * 2**20


@dataclass(frozen=True, slots=True)
class StampedFile:
    """``name`` is relative to the model's folder, with forward slashes; ``size`` in bytes."""

    name: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """``source`` is where the files came from, for people; ``licence`` as far as it is known."""

    files: tuple[StampedFile, ...]
    source: str
    licence: str | None = None
    format: int = FORMAT

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def sha256_of(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> str:
    """Return the file's SHA-256 in lower-case hex, telling the bytes read so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            on_bytes(done)
    return digest.hexdigest()


def stamp_files(
    folder: Path, hashes: Iterable[tuple[str, str]], source: str, licence: str | None
) -> Stamp:
    """Stamp files whose (name, SHA-256) were just verified."""
    files = []
    for name, sha256 in hashes:
        status = (folder / name).stat()
        files.append(StampedFile(name, status.st_size, status.st_mtime_ns, sha256))
    return Stamp(tuple(files), source, licence)


def write(stamp: Stamp, folder: Path) -> None:
    """Write the stamp into ``folder``, in one step."""
    new = folder / f"{_NAME}.{os.getpid()}.new"
    new.write_bytes(orjson.dumps(asdict(stamp), option=orjson.OPT_INDENT_2))
    new.replace(folder / _NAME)


def read(folder: Path) -> Stamp | None:
    """Return the stamp in ``folder``; None when there is none that this version can read."""
    try:
        stamp = TypeAdapter(Stamp).validate_json((folder / _NAME).read_bytes())
    except (OSError, ValidationError):
        return None
    return stamp if stamp.format == FORMAT else None


def is_intact(folder: Path, stamp: Stamp) -> bool:
    """Whether the files are those that were stamped; cheap unless one was touched since."""
    files = []
    for file in stamp.files:
        try:
            status = (folder / file.name).stat()
        except OSError:
            return False
        if status.st_size != file.size:
            return False
        if status.st_mtime_ns != file.mtime_ns:
            if sha256_of(folder / file.name) != file.sha256:
                return False
            file = replace(file, mtime_ns=status.st_mtime_ns)
        files.append(file)
    if tuple(files) != stamp.files and os.access(folder, os.W_OK):
        write(replace(stamp, files=tuple(files)), folder)
    return True


def damaged(folder: Path, stamp: Stamp, on_bytes: Callable[[int], None]) -> str | None:
    """Hash every file again; return the name of the first that is not what was stamped, or None."""
    done = 0
    for file in stamp.files:
        path = folder / file.name
        try:
            same = path.stat().st_size == file.size and file.sha256 == sha256_of(
                path, after(done, on_bytes)
            )
        except OSError:
            same = False
        if not same:
            return file.name
        done += file.size
    return None
