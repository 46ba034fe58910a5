"""What a user may write where a model is meant, told apart: catalogue name, ModelScope id, path.

Pure but for one look at the disk, which decides between a path and a ModelScope id. `store` turns a
reference into files.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from qwen_openai.errors import StartupError
from qwen_openai.models.catalogue import Entry, find

DEFAULT_REVISION = "master"

_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_REPOSITORY = re.compile(
    rf"(?P<id>{_SEGMENT}/{_SEGMENT})(?:/(?P<file>{_SEGMENT}(?:/{_SEGMENT})*))?"
    rf"(?:@(?P<revision>{_SEGMENT}(?:/{_SEGMENT})*))?"
)


@dataclass(frozen=True, slots=True)
class CatalogueRef:
    entry: Entry


@dataclass(frozen=True, slots=True)
class RepositoryRef:
    """A ModelScope repository, or one file of it. ``revision`` is a branch, tag or commit; None
    where the user named none."""

    repository: str
    file: str | None
    revision: str | None

    @property
    def name(self) -> str:
        name = self.repository if self.file is None else f"{self.repository}/{self.file}"
        return name if self.revision is None else f"{name}@{self.revision}"


@dataclass(frozen=True, slots=True)
class PathRef:
    """A file or folder that exists, as an absolute path."""

    path: Path


Reference = CatalogueRef | RepositoryRef | PathRef


def parse(model: str, catalogue: tuple[Entry, ...], revision: str | None = None) -> Reference:
    """Tell what ``model`` names.

    In order: a catalogue name; a path that exists; ``org/name`` or ``org/name/file.gguf``, either
    with ``@revision`` (``revision`` says the same apart). Raises StartupError for anything else,
    for a path to nothing, and for a revision where there are none.
    """
    entry = find(model, catalogue)
    path = Path(model).expanduser()
    if entry is not None or (model and path.exists()):
        if revision is not None:
            raise StartupError(
                f"{model!r} has no revisions; only a ModelScope repository has.",
                fix="Leave --revision out.",
            )
        return CatalogueRef(entry) if entry is not None else PathRef(path.resolve())
    match = None if _looks_like_a_path(model) else _REPOSITORY.fullmatch(model)
    if match is not None:
        return _repository(match, revision)
    raise _unknown(model, catalogue)


def _repository(match: re.Match[str], revision: str | None) -> RepositoryRef:
    written = match["revision"]
    if written is not None and revision is not None and written != revision:
        raise StartupError(
            f"Two revisions are asked for: {written!r} in the name and {revision!r} beside it.",
            fix="Give one of them.",
        )
    if revision is not None and re.fullmatch(rf"{_SEGMENT}(?:/{_SEGMENT})*", revision) is None:
        raise StartupError(
            f"{revision!r} cannot be a revision.",
            fix="A revision is a branch, a tag or a commit, such as master or v1.1.4.",
        )
    return RepositoryRef(match["id"], match["file"], revision or written)


def _looks_like_a_path(model: str) -> bool:
    ends_as_file = model.endswith(".gguf") and model.count("/") < 2
    return model.startswith(("/", "./", "../", "~")) or ends_as_file


def _unknown(model: str, catalogue: tuple[Entry, ...]) -> StartupError:
    if _looks_like_a_path(model):
        return StartupError(
            f"There is no file or folder {model!r}.",
            fix="Check the path; `qwen-openai models` lists the models to be had by name.",
        )
    names = [entry.name for entry in catalogue]
    near = difflib.get_close_matches(model.lower(), names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return StartupError(
        f"No model is called {model!r}.",
        fix=f"{hint}`qwen-openai models` lists the names; a ModelScope id (org/name) or a path to a"
        " .gguf file will do as well.",
    )
