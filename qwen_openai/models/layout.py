"""Where things lie below the cache folder; nothing here opens a file.

    HOME/catalogue/NAME/                        a catalogue entry
    HOME/modelscope/ORG/NAME/REVISION/          a repository's snapshot
    HOME/modelscope/ORG/NAME/REVISION+FILE/     one file of a repository
    HOME/local/KEY/                             what was read out of a file that lies elsewhere
    HOME/dequantised/KEY/                       safetensors made of a GGUF file
    HOME/partial/…                              what is not complete
    HOME/locks/…                                one a model

A model's folder has `files/` (what was fetched), `stamp.json` (its verification), `tokenizer.json`
and `model.json` (what was read out of the weights). It appears in one rename, with all four.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from qwen_openai.models.reference import DEFAULT_REVISION, CatalogueRef, RepositoryRef


def default_home(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Return the cache folder of a user who set none.

    `$XDG_CACHE_HOME/qwen-openai` where that is an absolute path, as its specification has it; else
    `~/Library/Caches/qwen-openai` on macOS and `~/.cache/qwen-openai` elsewhere.
    """
    environ = os.environ if environ is None else environ
    chosen = Path(environ.get("XDG_CACHE_HOME", ""))
    if chosen.is_absolute():
        return chosen / "qwen-openai"
    user = Path.home()
    caches = user / "Library" / "Caches" if platform == "darwin" else user / ".cache"
    return caches / "qwen-openai"


def stated_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return the cache folder that the environment states, in QWEN_OPENAI_HOME, else the default.

    For those whom no settings tell: a program that uses the library, above all.
    """
    environ = os.environ if environ is None else environ
    stated = environ.get("QWEN_OPENAI_HOME")
    return (Path(stated) if stated else default_home(environ)).expanduser().absolute()


def folder_of(ref: CatalogueRef | RepositoryRef, home: Path) -> Path:
    """Return the folder that the model has, or would have."""
    if isinstance(ref, CatalogueRef):
        return home / "catalogue" / ref.entry.name
    revision = _flat(ref.revision or DEFAULT_REVISION)
    leaf = revision if ref.file is None else f"{revision}+{_flat(ref.file)}"
    return repository_folder(ref, home) / leaf


def repository_folder(ref: RepositoryRef, home: Path) -> Path:
    """Return the folder of all that was pulled out of a repository."""
    return home / "modelscope" / ref.repository


def local_folder(weights: Path, home: Path) -> Path:
    """Return the folder for what is read out of ``weights``: its name changes when the file does.

    Raises OSError when there is no such file.
    """
    return home / "local" / _key(weights)


def dequantised_folder(weights: Path, home: Path, version: int) -> Path:
    """Return the folder for the safetensors made of the GGUF file ``weights`` in the ``version`` of
    our making: its name changes when the file does. Raises OSError when there is no such file."""
    return home / "dequantised" / f"{_key(weights)}-{version}"


def _key(weights: Path) -> str:
    status = weights.stat()
    where = hashlib.sha256(os.fsencode(weights)).hexdigest()[:16]
    what = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    return f"{where}-{what}"


def drop_older(folder: Path) -> None:
    """Delete the other folders of the file that `local_folder`, or `dequantised_folder`, gave
    ``folder`` for."""
    for other in folder.parent.glob(f"{folder.name.split('-')[0]}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def partial_folder(folder: Path, home: Path) -> Path:
    """Return where the model that belongs into ``folder`` is put together."""
    return home / "partial" / _flat(folder.relative_to(home).as_posix())


def lock_file(folder: Path, home: Path) -> Path:
    """Return the lock that a pull into ``folder`` holds."""
    return home / "locks" / f"{_flat(folder.relative_to(home).as_posix())}.lock"


def _flat(path: str) -> str:
    return path.replace("/", "--")
