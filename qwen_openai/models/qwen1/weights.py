"""Qwen-1's weights on disk as tensors with Qwen2's names: mapped into memory, nothing copied.

The one place that reads PyTorch's own files (`pytorch_model-*.bin`): with ``weights_only``, so that
nothing in them is run. Imports torch only when it is called.
"""

import zipfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import CONFIG_FILE
from qwen_openai.models.document import AGAIN, read_document
from qwen_openai.models.qwen1.config import read_shape
from qwen_openai.models.qwen1.mapping import Renamed, fault, is_passed_over, renaming
from qwen_openai.models.shards import DTYPES, Shards, find_shards, read_header

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

_INSTALL = "pip install torch==2.13.0 && pip install 'qwen-openai[transformers]'"


def state_dict(folder: Path) -> dict[str, "Tensor"]:
    """Return the tensors of a Qwen-1 directory under Qwen2's names, in the type they have on disk.

    They are views of the files, mapped: a page is read when it is first touched. Raises
    StartupError when a tensor is missing, unknown or of another shape than config.json asks, when
    a file is damaged or refused, and when torch is not installed.
    """
    shape = read_shape(read_document(folder / CONFIG_FILE))
    table = renaming(shape)
    shards = find_shards(folder)
    loaded: list[tuple[str, Tensor]] = []
    for file in shards.files:
        loaded += load_shard(file, shards, table).items()
    check(folder, [(name, tuple(tensor.shape)) for name, tensor in loaded], table, shape.tied)
    return {
        target: part
        for name, tensor in loaded
        if not is_passed_over(name, shape.tied)
        for target, part in split(tensor, table[name]).items()
    }


def split(tensor: "Tensor", renamed: Renamed) -> dict[str, "Tensor"]:
    """Return the parts of a tensor by their names in Qwen2, as views."""
    parts = tensor.chunk(len(renamed.targets))
    return dict(zip(renamed.targets, parts, strict=True))


def check(
    folder: Path,
    found: list[tuple[str, tuple[int, ...]]],
    table: Mapping[str, Renamed],
    tied: bool,
) -> None:
    """Raise StartupError, naming a tensor, unless exactly those of ``table`` were found."""
    reason = fault(found, table, tied)
    if reason is not None:
        raise StartupError(f"{folder} is not a sound Qwen-1: {reason}.", fix=AGAIN)


def load_shard(file: Path, shards: Shards, wanted: Container[str]) -> dict[str, "Tensor"]:
    """Return the tensors of one file of the weights, mapped; those that are ``wanted`` must be of
    a type that is served. Raises StartupError."""
    if shards.format == "bin":
        return load_pickle(file, wanted)
    for name, stored in read_header(file).items():
        if name in wanted and stored.dtype not in DTYPES:
            _refuse(file, f"its tensor {name!r} is of the type {stored.dtype}")
    torch_module()
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no dict


def load_pickle(file: Path, wanted: Container[str]) -> dict[str, "Tensor"]:
    """Return the tensors of a file that torch.save wrote, mapped where its format allows that;
    those that are ``wanted`` must be of a type that is served.

    Raises StartupError when the file holds anything but plain tensors by name: code above all.
    """
    torch = torch_module()
    try:
        # The format before torch 1.6 is no zip file and cannot be mapped.
        loaded: object = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except Exception as exc:  # a hostile file may raise anything; torch's text runs to a page
        raise StartupError(
            f"{file} was not loaded: it is damaged, or holds code where only weights belong"
            f" ({type(exc).__name__}).",
            fix="Fetch the model again, best as safetensors, and only from its own publisher.",
        ) from exc
    if not isinstance(loaded, dict):
        _refuse(file, "it holds no table of tensors")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            _refuse(file, "it holds something else than tensors by name")
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            _refuse(file, f"its tensor {name[:80]!r} is not a plain one")
        if name in wanted and tensor.dtype not in {
            getattr(torch, dtype) for dtype in DTYPES.values()
        }:
            _refuse(file, f"its tensor {name[:80]!r} is of the type {tensor.dtype}")
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            _refuse(file, f"its tensor {name[:80]!r} states more numbers than there are")
    return {name: tensor.detach() for name, tensor in loaded.items()}


def torch_module() -> "ModuleType":
    """Return torch. Raises StartupError with the way to install it."""
    try:
        import torch
    except ImportError as exc:
        raise StartupError(
            "This needs PyTorch, which is not installed.",
            fix=f"Install it with the rest that models outside of GGUF need: `{_INSTALL}`.",
        ) from exc
    return torch


def _refuse(file: Path, reason: str) -> NoReturn:
    raise StartupError(f"{file} cannot be used: {reason}.", fix=AGAIN)
