"""Which files of a repository are worth fetching: data and rules, nothing is opened here.

Of several GGUF files the user names one. Of a directory of weights, one format of the weights, the
configs, the tokenizer and the licence; never code, and no pictures.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import CONFIG_FILE
from qwen_openai.models.hub import RemoteFile
from qwen_openai.models.reference import RepositoryRef

_KINDS = {".safetensors", ".json", ".tiktoken", ".jinja", ".txt", ".md", ""}


def choose(ref: RepositoryRef, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Return what to download. Nobody wants all quantisations of a model, nor all formats of its
    weights. Raises StartupError when the repository holds nothing that is served."""
    if not files:
        raise StartupError(f"The repository {ref.name} is empty.", fix="Check its name.")
    if ref.file is not None:
        return [_named(ref, ref.file, files)]
    models = [file for file in files if is_gguf(file)]
    if len(models) > 1:
        raise StartupError(
            f"The repository {ref.repository} holds {len(models)} GGUF files, each a model of its"
            " own.",
            fix=f"Name one: {ref.repository}/FILE, of {_names(models)}.",
        )
    if models:
        return list(files)
    if not any(file.path == CONFIG_FILE for file in files):
        raise StartupError(
            f"The repository {ref.repository} holds neither a GGUF file nor a {CONFIG_FILE}, so"
            " there is no model to serve in it.",
            fix="Choose another; `qwen-openai models` lists what can be had by name.",
        )
    has_safetensors = any(_kind(file) == ".safetensors" for file in files)
    return [
        file
        for file in files
        if _kind(file) in _KINDS or (_is_pickle(file) and not has_safetensors)
    ]


def left_out(
    ref: RepositoryRef, files: Sequence[RemoteFile], chosen: Sequence[RemoteFile]
) -> str | None:
    """Say what `choose` left out of a whole repository, in one sentence; None when that is nothing
    or the user's own choice."""
    rest = [file for file in files if file not in chosen]
    if ref.file is not None or not rest:
        return None
    size = sum(file.size for file in rest)
    return (
        f"{ref.name}: code, pictures and other formats are not needed and not fetched"
        f" ({len(rest)} {'file' if len(rest) == 1 else 'files'}, {size / 1e6:.1f} MB)."
    )


def is_gguf(file: RemoteFile) -> bool:
    """Whether a file is a GGUF, by its name."""
    return _kind(file) == ".gguf"


def _named(ref: RepositoryRef, name: str, files: Sequence[RemoteFile]) -> RemoteFile:
    found = next((file for file in files if file.path == name), None)
    if found is None:
        raise StartupError(
            f"The repository {ref.repository} has no file {name!r}.",
            fix=f"It has: {_names(files)}.",
        )
    if not is_gguf(found):
        raise StartupError(
            f"{name} is no GGUF file, and no other file is a model alone.",
            fix=f"Name the whole repository: {ref.repository}.",
        )
    return found


def _kind(file: RemoteFile) -> str:
    return PurePosixPath(file.path).suffix.lower()


def _is_pickle(file: RemoteFile) -> bool:
    return _kind(file) == ".bin" and file.path.startswith("pytorch_model")


def _names(files: Sequence[RemoteFile]) -> str:
    shown = ", ".join(file.path for file in files[:8])
    return shown + (f" and {len(files) - 8} more" if len(files) > 8 else "")
