"""A Qwen-1 directory into one that stock transformers, vLLM, SGLang and llama.cpp load as Qwen2.

A shard out for each shard in, copied in blocks: weights are never held whole, and safetensors need
no torch. All that is read but the weights' numbers is read, and refused, before a byte is written.
The directory is put together apart, its config.json last, and appears in one rename.
Knows no terminal; `cli.convert` draws the progress.
"""

import errno
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

import orjson
from filelock import FileLock, Timeout

from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import (
    CONFIG_FILE,
    QWEN1_TEMPLATE,
    Checkpoint,
    check_rows,
    read_checkpoint,
)
from qwen_openai.models.describe import write_whole
from qwen_openai.models.document import read_document
from qwen_openai.models.progress import Progress, after
from qwen_openai.models.qwen1.config import generation_config, qwen2_config, read_shape
from qwen_openai.models.qwen1.copying import open_source, reading, write_shard
from qwen_openai.models.qwen1.mapping import Renamed, renaming
from qwen_openai.models.qwen1.weights import check
from qwen_openai.models.shards import DTYPES, ITEM_BYTES, Shards, find_shards
from qwen_openai.models.tiktoken_file import (
    CONTROL_TOKENS,
    RANKS,
    VOCABULARY_FILE,
    build_from_tiktoken,
)

_GENERATION_FILE = "generation_config.json"
_MARGIN = 48 * 2**20  # bytes of disk for the tokenizer, the headers and the small files
_PAPERS = ("license", "licence", "notice", "copying", "usage")
_MOST_PAPER = 2**20
_LOCK = "lock"
# Why a folder cannot be renamed to a place where something has come to be.
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
_NEW_FOLDER = "Give the path of a new folder."


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was done: ``shards`` written, ``weight_bytes`` in them, ``peak_bytes`` of weights held
    in memory at the worst moment, and the ``seconds`` it took."""

    shards: int
    weight_bytes: int
    peak_bytes: int
    seconds: float


def free_space(folder: Path) -> int:
    """Return the free bytes of the disk that ``folder`` is on."""
    return shutil.disk_usage(folder).free


def convert(
    source: Path,
    target: Path,
    progress: Progress,
    *,
    free_space: Callable[[Path], int] = free_space,
    ranks: int = RANKS,
) -> Conversion:
    """Write the Qwen-1 directory ``source`` as a Qwen2 directory ``target``, which must be empty or
    not there. ``ranks`` is how many tokens the source's `qwen.tiktoken` must have.

    Raises StartupError when the source is something else, incomplete or damaged, when the target
    holds something, and when the disk refuses. Whatever ends it early, no target is left.
    """
    began = time.monotonic()
    checkpoint = _convertible(source)
    target = _absolute(target)
    try:
        _check_free(target, checkpoint.folder)
        plan = _plan(checkpoint, ranks)
        target.parent.mkdir(parents=True, exist_ok=True)
        needed, free = checkpoint.weight_bytes + _MARGIN, free_space(target.parent)
        if needed > free:
            raise StartupError(
                f"{target} needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there.",
                fix="Free some space, or convert to another disk.",
            )
        with _apart(target) as folder:
            done = _write_weights(plan, folder, progress, f"Writing {target.name}")
            for name, content in plan.documents.items():
                write_whole(folder / name, content)
            _appear(folder, target)
    except OSError as exc:
        raise StartupError(
            f"{target} cannot be written: {exc.strerror or exc}.",
            fix="Mend its rights or its disk, or choose another place.",
        ) from exc
    return Conversion(*done, seconds=time.monotonic() - began)


def _convertible(source: Path) -> Checkpoint:
    has_gguf = source.suffix.lower() == ".gguf" or (
        source.is_dir() and any(source.glob("*.gguf")) and not (source / CONFIG_FILE).is_file()
    )
    if has_gguf:
        raise StartupError(
            f"{source} is GGUF, which needs no conversion and has no way back from it.",
            fix=f"Serve it as it is: `qwen-openai serve {source}`.",
        )
    checkpoint = read_checkpoint(source)
    if not checkpoint.raw:
        what = "is converted already" if checkpoint.qwen1 else "is no Qwen-1: it is up to date"
        raise StartupError(
            f"{source} {what}, so there is nothing to convert.",
            fix=f"Serve it as it is: `qwen-openai serve {source}`.",
        )
    return checkpoint


def _absolute(target: Path) -> Path:
    try:
        return target.expanduser().absolute()
    except RuntimeError as exc:
        raise StartupError(
            f"{target} names the home of a user that this machine does not know.", fix=_NEW_FOLDER
        ) from exc


def _check_free(target: Path, source: Path) -> None:
    """Raise StartupError unless the target can appear without anything being lost."""
    place, model = target.resolve(), source.resolve()
    if place == model or place in model.parents:
        what = "is" if place == model else "holds"
        raise StartupError(
            f"{target} {what} the model that is to be converted, which is left as it is.",
            fix=_NEW_FOLDER,
        )
    if os.path.ismount(target):
        raise StartupError(
            f"{target} is where a disk is mounted, and a folder cannot take its place.",
            fix=f"Give a new folder in it, such as {target / source.resolve().name}.",
        )
    if target.is_symlink() or target.exists():
        if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
            return
        raise StartupError(
            f"{target} is there already and is not an empty folder.", fix=_NEW_FOLDER
        )


def _appear(folder: Path, target: Path) -> None:
    """Rename ``folder`` to ``target``. Raises StartupError when there is something by now."""
    try:
        folder.rename(target)
    except OSError as exc:
        if exc.errno not in _TAKEN:
            raise
        raise StartupError(
            f"{target} was filled by another program while this one converted; nothing in it was"
            " changed.",
            fix=f"Use what is there now, or: {_NEW_FOLDER}",
        ) from None


@contextmanager
def _apart(target: Path) -> Iterator[Path]:
    """Yield a new folder on the target's disk; it is deleted, unless it was renamed meanwhile.

    It lies in a hidden one beside the target, with a lock that is held as long as this runs: what
    has a free lock was left by a conversion that was killed, and is deleted as well.
    """
    _remove_left(target)
    place, lock = _workplace(target)
    try:
        # Of its own rights: those of mkdtemp's folder let only its owner in.
        folder = place / "new"
        folder.mkdir()
        yield folder
    finally:
        lock.release()
        shutil.rmtree(place, ignore_errors=True)


def _workplace(target: Path) -> tuple[Path, FileLock]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        lock = FileLock(place / _LOCK)
        try:
            lock.acquire()
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        # Gone, when another conversion took it for left in the moment before it was locked.
        if (place / _LOCK).exists():
            return place, lock
        lock.release()


def _remove_left(target: Path) -> None:
    ours = re.compile(re.escape(_prefix(target)) + "[a-z0-9_]{8}")
    # Held by a conversion that runs, here or on another machine; or of another user.
    for left in target.parent.iterdir():
        if ours.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
            with suppress(OSError, Timeout), FileLock(left / _LOCK, timeout=0):
                shutil.rmtree(left, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{target.name}.converting-"


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that is known before the weights are copied: ``table`` says what becomes of each tensor,
    ``documents`` are the files beside them by name, config.json last: nothing loads without it."""

    checkpoint: Checkpoint
    shards: Shards
    table: Mapping[str, Renamed]
    documents: Mapping[str, bytes]


def _plan(checkpoint: Checkpoint, ranks: int) -> _Plan:
    """Read and check the source. Raises StartupError where it is not sound."""
    source = checkpoint.folder
    stated = read_document(source / CONFIG_FILE)
    config = qwen2_config(stated.values, stated.path)
    sampling = source / _GENERATION_FILE
    generation = generation_config(read_document(sampling).values if sampling.is_file() else {})
    vocabulary = source / VOCABULARY_FILE
    check_rows(stated, vocabulary, ranks + len(CONTROL_TOKENS) - 1)
    tokenizer = build_from_tiktoken(vocabulary, ranks)
    shards = find_shards(source)
    table, dtype = _survey(source, shards)
    return _Plan(
        checkpoint,
        shards,
        table,
        _papers(source)
        | {
            "tokenizer.json": tokenizer,
            "tokenizer_config.json": _json(_tokenizer_config(checkpoint)),
            _GENERATION_FILE: _json(generation),
            CONFIG_FILE: _json(config | {"torch_dtype": dtype}),
        },
    )


def _survey(folder: Path, shards: Shards) -> tuple[dict[str, Renamed], str]:
    """Return the table of tensors, once all shards together hold exactly those, and the type that
    most of them have; what config.json says of it is often wrong of pickles."""
    shape = read_shape(read_document(folder / CONFIG_FILE))
    table = renaming(shape)
    found: list[tuple[str, tuple[int, ...]]] = []
    counted: Counter[str] = Counter()
    for file in shards.files:
        with open_source(file, shards, table) as source:
            found += source.shapes.items()
            for name, size in source.shapes.items():
                if name in table:
                    dtype = source.dtype(name)
                    counted[dtype] += prod(size) * ITEM_BYTES[dtype]
    check(folder, found, table, shape.tied)
    return table, DTYPES[counted.most_common(1)[0][0]]


def _papers(source: Path) -> dict[str, bytes]:
    """Return the licence and the like, which go along."""
    found: dict[str, bytes] = {}
    with reading(source):
        papers = [each for each in source.iterdir() if each.name.lower().startswith(_PAPERS)]
    for paper in papers:
        with reading(paper):
            if paper.is_file() and paper.stat().st_size <= _MOST_PAPER:
                found[paper.name] = paper.read_bytes()
    return found


def _write_weights(
    plan: _Plan, folder: Path, progress: Progress, label: str
) -> tuple[int, int, int]:
    """Write the shards and their index; return their number, their bytes and the most held."""
    files, table = plan.shards.files, plan.table
    places: dict[str, str] = {}
    written = peak = 0
    progress.start(plan.checkpoint.weight_bytes, label)
    try:
        for number, file in enumerate(files, start=1):
            name = _shard_name(number, len(files))
            with open_source(file, plan.shards, table) as source:
                told = after(written, progress.advance)
                written += write_shard(folder / name, source, table, told)
                peak = max(peak, source.held_bytes)
                here = (table[each].targets for each in source.shapes if each in table)
                places |= {target: name for targets in here for target in targets}
        progress.advance(plan.checkpoint.weight_bytes)
    finally:
        progress.done()
    if len(files) > 1:
        index = {"metadata": {"total_size": written}, "weight_map": dict(sorted(places.items()))}
        write_whole(folder / "model.safetensors.index.json", _json(index))
    return len(files), written, peak


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"


def _tokenizer_config(checkpoint: Checkpoint) -> dict[str, object]:
    """The class is the one that takes tokenizer.json as it stands, in every version."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": checkpoint.qwen1.seq_length if checkpoint.qwen1 else None,
        "chat_template": QWEN1_TEMPLATE,
    }


def _json(document: object) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)
