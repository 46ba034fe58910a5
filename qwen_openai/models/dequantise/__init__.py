"""A GGUF file into a directory of safetensors that transformers loads, made once and kept.

The directory lies in the cache folder, by the file's path, size and time. It is put together apart
under a lock, and appears in one rename, stamped with the hash of each of its files; one that is
damaged is made again. Knows neither torch nor terminals.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from qwen_openai.errors import StartupError
from qwen_openai.models import layout, stamp
from qwen_openai.models.checkpoint import CONFIG_FILE, Checkpoint, read_checkpoint
from qwen_openai.models.dequantise.facts import (
    ANOTHER_ENGINE,
    EMBEDDING,
    HEAD,
    config,
    generation_config,
    read_facts,
    tokenizer_config,
)
from qwen_openai.models.dequantise.names import places_of
from qwen_openai.models.dequantise.numbers import Source, numbers_of, opened
from qwen_openai.models.dequantise.writing import Part, parts_of, write_documents, write_weights
from qwen_openai.models.gguf import GGUF, read_gguf
from qwen_openai.models.progress import Progress
from qwen_openai.models.store import ModelFiles, free_space

# Raise it when the same file is to give another directory.
_FORMAT = 1
_MARGIN = 48 * 2**20  # bytes of disk for the tokenizer, the headers and the small files
# What to compute in, by what most of the numbers are kept in. What Qwen was trained in reaches
# further than float16, beyond which its activations go.
_COMPUTED = {"F16": "bfloat16", "BF16": "bfloat16", "F32": "float32"}


def dequantised(
    files: ModelFiles,
    home: Path | None,
    progress: Progress,
    *,
    free_space: Callable[[Path], int] = free_space,
) -> Checkpoint:
    """Return the directory of safetensors made of a GGUF model, made now unless it is there and
    sound. Blocks: some seconds for a billion weights.

    ``home`` is the cache folder; without one, that of QWEN_OPENAI_HOME, else the user's. Raises
    StartupError when the file is damaged, or of a kind that transformers or the gguf package does
    not know, and when the disk refuses or is too small.
    """
    root = (home or layout.stated_home()).expanduser().absolute()
    try:
        folder = layout.dequantised_folder(files.weights, root, _FORMAT)
        kept = _kept(folder, files.name)
        if kept is not None:
            return kept
        with _locked(folder, root, files.name, progress):
            kept = _kept(folder, files.name)
            if kept is None:
                if folder.exists():
                    progress.note(f"{folder} is damaged; it is made again.")
                    shutil.rmtree(folder)  # now: the disk may have no room for both
                _make(files, folder, _Place(root, free_space, progress))
                kept = read_checkpoint(folder, files.name)
        return kept
    except OSError as exc:
        raise StartupError(
            f"The weights made of {files.weights} cannot be kept in {root}: {exc.strerror or exc}.",
            fix="Mend its rights or its disk, or choose another with QWEN_OPENAI_HOME.",
        ) from exc


@dataclass(frozen=True, slots=True)
class _Place:
    """The cache folder, the free bytes of its disk, and whom to tell."""

    home: Path
    free_space: Callable[[Path], int]
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that is known before the numbers are written."""

    parts: list[Part]
    documents: dict[str, object]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


def _kept(folder: Path, name: str) -> Checkpoint | None:
    """Return the directory if it is whole. Cheap: nothing is hashed unless it was touched since."""
    try:
        found = stamp.read(folder)
        if found is None or not stamp.is_intact(folder, found):
            return None
        return read_checkpoint(folder, name)
    except (StartupError, OSError):
        return None


@contextmanager
def _locked(folder: Path, home: Path, name: str, progress: Progress) -> Iterator[None]:
    path = layout.lock_file(folder, home)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.note(f"Another process is dequantising {name}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(files: ModelFiles, folder: Path, place: _Place) -> None:
    """Put the directory together apart, then let it appear. Whatever ends this early, nothing is
    left of it but, of a process that was killed, what the next one deletes."""
    gguf = read_gguf(files.weights)
    with opened(gguf.path) as source:
        plan = _plan(gguf, source, files)
        partial = layout.partial_folder(folder, place.home)
        # Of this file as it was before as well: the name ends with its state and our version.
        for left in partial.parent.glob(f"{partial.name.rsplit('-', 2)[0]}-*"):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _check_space(files.name, plan.size + _MARGIN, place)
            hashes = _write(partial, source, plan, files, place.progress)
            stamp.write(
                stamp.stamp_files(
                    partial, hashes.items(), str(files.weights), files.description.licence
                ),
                partial,
            )
            _appear(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _plan(gguf: GGUF, source: Source, files: ModelFiles) -> _Plan:
    """Read and check all but the numbers. Raises StartupError where the file is not sound."""
    facts = read_facts(gguf)
    places = places_of(gguf, facts)
    numbers = numbers_of(gguf)
    tied = HEAD not in numbers
    if not tied and source.are_copies(numbers[EMBEDDING], numbers[HEAD]):
        # A tied model whose file has its matrix twice, as tools for AWQ write it. The finer one
        # serves both ends: closer to the model before it was quantised, and a matrix less.
        tied = True
        finer = max(numbers[EMBEDDING], numbers.pop(HEAD), key=lambda each: each.fineness)
        numbers[EMBEDDING] = finer
    parts = [part for name, each in numbers.items() for part in parts_of(each, places[name])]
    sizes: Counter[str] = Counter()
    for part in parts:
        sizes[part.numbers.dtype] += part.size
    dtype = _COMPUTED[sizes.most_common(1)[0][0]]
    return _Plan(
        parts,
        {
            "tokenizer.json": files.tokenizer.read_bytes(),
            "tokenizer_config.json": tokenizer_config(gguf, files.description.template),
            "generation_config.json": generation_config(gguf),
            CONFIG_FILE: config(gguf, facts, tied=tied, dtype=dtype),
        },
    )


def _check_space(name: str, needed: int, place: _Place) -> None:
    free = place.free_space(place.home)
    if needed > free:
        raise StartupError(
            f"The weights of {name}, dequantised for the engine transformers, need"
            f" {needed / 1e9:.2f} GB in {place.home}, and {free / 1e9:.2f} GB are free there.",
            fix="Free some space, or choose another disk with QWEN_OPENAI_HOME. " + ANOTHER_ENGINE,
        )


def _write(
    folder: Path, source: Source, plan: _Plan, files: ModelFiles, progress: Progress
) -> dict[str, str]:
    progress.start(plan.size, f"Dequantising {files.name}")
    try:
        hashes = write_weights(folder, source, plan.parts, progress.advance)
    finally:
        progress.done()
    return hashes | write_documents(folder, plan.documents)


def _appear(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``, and drop what was made of the file as it was before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new.rename(folder)
    layout.drop_older(folder)
