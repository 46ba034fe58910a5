"""A Qwen-1 directory into one that stock transformers, vLLM, SGLang and llama.cpp load as Qwen2.

A shard out for each shard in, copied in blocks: weights are never held whole, and safetensors need
no torch. The directory is put together apart, its config.json last, and appears in one rename.
Knows no terminal; `cli.convert` draws the progress.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import (
    CONFIG_FILE,
    QWEN1_TEMPLATE,
    Checkpoint,
    read_checkpoint,
)
from qwen_openai.models.describe import write_whole
from qwen_openai.models.document import read_document
from qwen_openai.models.progress import Progress, after
from qwen_openai.models.qwen1.config import generation_config, qwen2_config, read_shape
from qwen_openai.models.qwen1.copying import open_source, write_shard
from qwen_openai.models.qwen1.mapping import Renamed, renaming
from qwen_openai.models.qwen1.weights import check
from qwen_openai.models.shards import Shards, find_shards
from qwen_openai.models.tiktoken_file import VOCABULARY_FILE, build_from_tiktoken

_GENERATION_FILE = "generation_config.json"
_MARGIN = 48 * 2**20  # bytes of disk for the tokenizer, the headers and the small files
_PAPERS = ("license", "licence", "notice", "copying", "usage")
_MOST_PAPER = 2**20


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
) -> Conversion:
    """Write the Qwen-1 directory ``source`` as a Qwen2 directory ``target``, which must be empty or
    not there.

    Raises StartupError when the source is something else, incomplete or damaged, when the target
    holds something, and when the disk refuses. Whatever ends it early, no target is left.
    """
    began = time.monotonic()
    checkpoint = _convertible(source)
    target = target.expanduser().absolute()
    _check_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        needed, free = checkpoint.weight_bytes + _MARGIN, free_space(target.parent)
        if needed > free:
            raise StartupError(
                f"{target} needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there.",
                fix="Free some space, or convert to another disk.",
            )
        with _apart(target) as folder:
            done = _write_weights(checkpoint, folder, progress, f"Writing {target.name}")
            _write_rest(checkpoint, folder)
            folder.rename(target)
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


def _check_free(target: Path) -> None:
    if target.is_symlink() or target.exists():
        if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
            return
        raise StartupError(
            f"{target} is there already and is not an empty folder.",
            fix="Give the path of a new folder, or delete that one.",
        )


@contextmanager
def _apart(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside the target; it is deleted, unless it was renamed meanwhile.

    What conversions left that were killed is deleted as well.
    """
    for left in target.parent.glob(f".{target.name}.converting-*"):
        number = left.name.rpartition("-")[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    folder = target.with_name(f".{target.name}.converting-{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_weights(
    checkpoint: Checkpoint, folder: Path, progress: Progress, label: str
) -> tuple[int, int, int]:
    """Write the shards and their index; return their number, their bytes and the most held."""
    shards = find_shards(checkpoint.folder)
    table = _checked_table(checkpoint.folder, shards)
    places: dict[str, str] = {}
    written = peak = 0
    progress.start(checkpoint.weight_bytes, label)
    try:
        for number, file in enumerate(shards.files, start=1):
            name = _shard_name(number, len(shards.files))
            with open_source(file, shards) as source:
                told = after(written, progress.advance)
                written += write_shard(folder / name, source, table, told)
                peak = max(peak, source.held_bytes)
                here = (table[each].targets for each in source.shapes if each in table)
                places |= {target: name for targets in here for target in targets}
        progress.advance(checkpoint.weight_bytes)
    finally:
        progress.done()
    if len(shards.files) > 1:
        index = {"metadata": {"total_size": written}, "weight_map": dict(sorted(places.items()))}
        _write_json(folder / "model.safetensors.index.json", index)
    return len(shards.files), written, peak


def _checked_table(folder: Path, shards: Shards) -> dict[str, Renamed]:
    """Return the table of tensors, once all shards together hold exactly those."""
    shape = read_shape(read_document(folder / CONFIG_FILE))
    table = renaming(shape)
    found: list[tuple[str, tuple[int, ...]]] = []
    for file in shards.files:
        with open_source(file, shards) as source:
            found += source.shapes.items()
    check(folder, found, table, shape.tied)
    return table


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"


def _write_rest(checkpoint: Checkpoint, folder: Path) -> None:
    """Write what is beside the weights; config.json last, since without it nothing loads them."""
    source = checkpoint.folder
    for paper in source.iterdir():
        is_small = paper.is_file() and paper.stat().st_size <= _MOST_PAPER
        if is_small and paper.name.lower().startswith(_PAPERS):
            shutil.copyfile(paper, folder / paper.name)
    write_whole(folder / "tokenizer.json", build_from_tiktoken(source / VOCABULARY_FILE))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(checkpoint))
    stated = source / _GENERATION_FILE
    sampling = read_document(stated).values if stated.is_file() else {}
    _write_json(folder / _GENERATION_FILE, generation_config(sampling))
    config = qwen2_config(read_document(source / CONFIG_FILE).values)
    _write_json(folder / CONFIG_FILE, config | {"torch_dtype": checkpoint.dtype})


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


def _write_json(path: Path, document: object) -> None:
    write_whole(path, orjson.dumps(document, option=orjson.OPT_INDENT_2))
