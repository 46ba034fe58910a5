"""What the catalogue offers and what the cache folder holds, for `qwen-openai models`.

Reads folder listings and stamps; hashes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qwen_openai.models import layout, stamp
from qwen_openai.models.catalogue import CATALOGUE, Entry
from qwen_openai.models.child import folder_size
from qwen_openai.models.reference import CatalogueRef

State = Literal["present", "partial", "absent"]


@dataclass(frozen=True, slots=True)
class Item:
    """A model. Sizes are bytes; ``size`` is the whole model's, None where it is not known, and
    ``on_disk`` what is there of it, partial downloads included."""

    name: str
    state: State
    size: int | None
    on_disk: int
    licence: str | None
    description: str
    path: Path | None


def inventory(home: Path, catalogue: tuple[Entry, ...] = CATALOGUE) -> list[Item]:
    """Return all entries of the catalogue, then what else was pulled, by name."""
    return [*(_entry(entry, home) for entry in catalogue), *_repositories(home)]


def _entry(entry: Entry, home: Path) -> Item:
    folder = layout.folder_of(CatalogueRef(entry), home)
    state, on_disk = _state(folder, home)
    return Item(
        name=entry.name,
        state=state,
        size=entry.size,
        on_disk=on_disk,
        licence=entry.licence,
        description=entry.description,
        path=folder if state == "present" else None,
    )


def _repositories(home: Path) -> Iterator[Item]:
    root = home / "modelscope"
    for folder in sorted(root.glob("*/*/*")):
        organisation, name, leaf = folder.relative_to(root).parts
        revision, _, file = leaf.partition("+")
        found = stamp.read(folder)
        state, on_disk = _state(folder, home)
        yield Item(
            name=f"{organisation}/{name}{'/' * bool(file)}{file}@{revision}",
            state=state,
            size=found.size if found else None,
            on_disk=on_disk,
            licence=found.licence if found else None,
            description=found.source if found else "",
            path=folder,
        )


def _state(folder: Path, home: Path) -> tuple[State, int]:
    """Whether the model is there (by its stamp and its files' sizes), and its bytes on the disk."""
    found = stamp.read(folder)
    partial = folder_size(layout.partial_folder(folder, home))
    if found is None:
        return ("partial" if partial else "absent"), partial
    whole = all(_has_size(folder / file.name, file.size) for file in found.files)
    return ("present" if whole else "partial"), folder_size(folder / "files") + partial


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
