"""A GGUF's numbers, piece by piece: read by offset, dequantised by ggml's own package, and checked.

Numbers that are no quanta stay as they are, bit for bit. Quanta become float16: a quantum of up to
8 bits times a scale of 11 needs no more than its 11 bits to be off by a fraction of the quantum's
own error (by 0.02 % at most, where Q8_0 is off by 0.4 %), and bfloat16's 8 bits would be off by
0.2 %. What computes in bfloat16 rounds them once more, to what it would have had.
Knows neither names nor where the numbers go.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeVar

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from qwen_openai.errors import StartupError
from qwen_openai.models.dequantise.facts import ANOTHER_ENGINE
from qwen_openai.models.gguf import GGUF, TensorInfo, unusable

_Floats = NDArray[np.float16 | np.float32]
_Result = TypeVar("_Result")

# Of the most elements that a processor's cache holds with what is made of them; all blocks of ggml
# are a fraction of it.
PIECE = 262_144
_MOST_THREADS = 8
_VERBATIM = {
    GGMLQuantizationType.F32: "F32",
    GGMLQuantizationType.F16: "F16",
    GGMLQuantizationType.BF16: "BF16",
}
_BF16_EXPONENT = 0x7F80
# Two copies of a row, quantised each in its own way, differ by some 4 % of its length (5 and 8
# bits), by 15 % with 3 bits; rows that have nothing to do with each other by 140 %.
_ALIKE = 0.25
_NO_ROW = 0.01


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one tensor: ``dtype`` is what they become, in safetensors' words; a block of
    ``block`` elements has ``block_bytes`` in the file."""

    tensor: TensorInfo
    kind: GGMLQuantizationType
    dtype: str
    block: int
    block_bytes: int

    @property
    def fineness(self) -> float:
        """Bits for a number, by which two quantisations of one matrix are ranked."""
        return 8 * self.block_bytes / self.block


def numbers_of(gguf: GGUF) -> dict[str, Numbers]:
    """Return how the numbers of each tensor are to be read, by name.

    Raises StartupError when a tensor is of a type that cannot be dequantised, or is cut off.
    """
    kinds: dict[int, tuple[GGMLQuantizationType, str]] = {}
    found: dict[str, Numbers] = {}
    for tensor in gguf.tensors:
        if tensor.kind not in kinds:
            kinds[tensor.kind] = _kind(gguf.path, tensor)
        kind, dtype = kinds[tensor.kind]
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if not tensor.shape or tensor.shape[-1] % block:
            raise unusable(gguf.path, f"the rows of its tensor {tensor.name[:80]} are not whole")
        if tensor.begin + prod(tensor.shape) // block * block_bytes > gguf.file_bytes:
            raise unusable(gguf.path, f"its tensor {tensor.name[:80]} is cut off")
        found[tensor.name] = Numbers(tensor, kind, dtype, block, block_bytes)
    return found


def _kind(path: Path, tensor: TensorInfo) -> tuple[GGMLQuantizationType, str]:
    name = f"of the number {tensor.kind}"
    try:
        kind = GGMLQuantizationType(tensor.kind)
        name = kind.name
        if kind in _VERBATIM:
            return kind, _VERBATIM[kind]
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except (ValueError, NotImplementedError):
        raise StartupError(
            f"{path} cannot be dequantised: its tensor {tensor.name[:80]} is of ggml's type {name},"
            " which the gguf package does not read.",
            fix=f"Take the model in another quantisation, such as Q4_K_M. {ANOTHER_ENGINE}",
        ) from None
    return kind, "F16"


class Source:
    """An open GGUF file. `pieces` and `are_copies` compute in several threads, and hold a few
    pieces for each."""

    def __init__(self, path: Path, descriptor: int, pool: Executor, threads: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._pool = pool
        self._ahead = 2 * threads

    def pieces(self, parts: Iterable[tuple[Numbers, int, int]]) -> Iterator[bytes]:
        """Yield the numbers of each part, (numbers, first element, element behind the last), as
        they are to be written, in order. Raises StartupError when they are no numbers."""
        jobs = (
            (numbers, begin, min(begin + PIECE, last))
            for numbers, first, last in parts
            for begin in range(first, last, PIECE)
        )
        return self._in_order(lambda job: self._piece(*job), jobs)

    def are_copies(self, one: Numbers, other: Numbers) -> bool:
        """Whether two matrices of one shape are one, each quantised in its own way."""
        rows, width = one.tensor.shape
        step = max(PIECE // width, 1)

        def alike(first: int) -> bool:
            last = min(first + step, rows)
            left, right = (self._rows(each, first, last, width) for each in (one, other))
            # Numbers of a damaged file may pass what a float holds; they are no copies then.
            with np.errstate(all="ignore"):
                lengths = np.linalg.norm(left, axis=1)
                # A row of nearly nothing is as good as none.
                lengths = np.maximum(lengths, _NO_ROW * float(lengths.mean()))
                return bool((np.linalg.norm(left - right, axis=1) <= _ALIKE * lengths).all())

        return all(self._in_order(alike, range(0, rows, step)))

    def _rows(self, numbers: Numbers, first: int, last: int, width: int) -> _Floats:
        raw = self._read(numbers, first * width, last * width)
        with np.errstate(all="ignore"):
            return dequantize(raw.reshape(1, -1), numbers.kind).reshape(-1, width)

    def _piece(self, numbers: Numbers, begin: int, end: int) -> bytes:
        raw = self._read(numbers, begin, end)
        if numbers.kind is GGMLQuantizationType.BF16:
            bits = raw.view(np.uint16) & _BF16_EXPONENT
            finite = not bool((bits == _BF16_EXPONENT).any())
            made: NDArray[np.generic] = raw
        else:
            # In one row: the package takes rows sixteen at a time, which are a few narrow ones.
            with np.errstate(all="ignore"):
                floats: _Floats = (
                    raw.view(np.float32 if numbers.dtype == "F32" else np.float16)
                    if numbers.kind in _VERBATIM
                    else dequantize(raw.reshape(1, -1), numbers.kind).astype(np.float16)
                )
            finite = bool(np.isfinite(floats).all())
            made = floats
        if not finite:
            raise unusable(
                self._path,
                f"its tensor {numbers.tensor.name} holds what is no number, or none that"
                f" {numbers.dtype} reaches",
            )
        return made.tobytes()

    def _read(self, numbers: Numbers, begin: int, end: int) -> NDArray[np.uint8]:
        at = numbers.tensor.begin + begin // numbers.block * numbers.block_bytes
        count = (end - begin) // numbers.block * numbers.block_bytes
        raw = os.pread(self._descriptor, count, at)
        if len(raw) != count:
            raise unusable(self._path, "it became shorter while it was read")
        return np.frombuffer(raw, np.uint8)

    def _in_order(self, work: Callable[..., _Result], jobs: Iterable[object]) -> Iterator[_Result]:
        waiting: deque[Future[_Result]] = deque()
        try:
            for job in jobs:
                waiting.append(self._pool.submit(work, job))
                if len(waiting) > self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a GGUF file for its numbers. Raises StartupError when it cannot be read."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as exc:
        raise StartupError(
            f"The model file {path} cannot be read: {exc.strerror or exc}.",
            fix="Check the path and its permissions.",
        ) from exc
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    with file, ThreadPoolExecutor(threads, thread_name_prefix="dequantise") as pool:
        yield Source(path, file.fileno(), pool, threads)
