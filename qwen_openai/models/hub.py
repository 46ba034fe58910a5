"""ModelScope as a source: one file or a whole repository, resumed where an earlier run stopped.

The work is done by a child process (`hub_child.py`). What the server says is checked before it is
used: a listing names no path outside its folder, and sizes are known before a byte is fetched.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from qwen_openai.models import child
from qwen_openai.models.catalogue import ModelScopeFile
from qwen_openai.models.failure import SourceFailed, Unreachable
from qwen_openai.models.reach import reachable

_CHINA = "https://modelscope.cn"
_WORLD = "https://www.modelscope.ai"
_STALL = 150.0  # seconds; the client itself gives a silent connection up after 60, and retries
_WEEK = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in a repository; ``size`` in bytes, ``sha256`` empty where the listing has none."""

    path: str
    size: int
    sha256: str = ""


class Request(TypedDict):
    """What the child is asked. With ``files``, in the client's own form: download them below the
    folder ``into``. With None: write the repository's listing to the file ``into``."""

    endpoint: str
    repository: str
    revision: str
    into: str
    files: list[dict[str, str | int]] | None


def endpoint(environ: Mapping[str, str]) -> str:
    """Return ModelScope's URL as its own client would choose it.

    `MODELSCOPE_ENDPOINT` before `MODELSCOPE_DOMAIN`, either a URL or a bare host with or without a
    port (then https); without them the Chinese site, or with `MODELSCOPE_PREFER_AI_SITE` the other.
    """
    chosen = environ.get("MODELSCOPE_ENDPOINT") or environ.get("MODELSCOPE_DOMAIN", "").strip()
    if not chosen:
        prefers_world = environ.get("MODELSCOPE_PREFER_AI_SITE", "").lower() in {"1", "true", "yes"}
        return _WORLD if prefers_world else _CHINA
    chosen = chosen.strip().rstrip("/")
    return chosen if chosen.lower().startswith(("http://", "https://")) else f"https://{chosen}"


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A revision of a repository, downloaded below ``folder``, which may hold an earlier run's."""

    repository: str
    revision: str
    folder: Path
    url: str

    @property
    def label(self) -> str:
        return f"ModelScope ({urlsplit(self.url).hostname})"

    @property
    def files(self) -> Path:
        """The folder that the files lie in once `download` returned."""
        return self.folder / "files"

    def probe(self) -> None:
        """Raise Unreachable, within two seconds, when ModelScope cannot be reached."""
        if not reachable(self.url):
            raise Unreachable()

    def listing(self) -> list[RemoteFile]:
        """Ask which files there are. Raises SourceFailed, also for a listing that is not safe."""
        self.folder.mkdir(parents=True, exist_ok=True)
        answer = self.folder / "listing.json"
        self._run(answer, None, lambda _: None)
        try:
            files = TypeAdapter(list[RemoteFile]).validate_json(answer.read_bytes())
        except ValidationError:
            raise _unsafe("its listing cannot be read") from None
        return vetted(files)

    def download(self, files: Sequence[RemoteFile], on_bytes: Callable[[int], None]) -> None:
        """Fetch ``files``, telling the bytes on disk. Raises SourceFailed; what arrived is kept."""
        self.files.mkdir(parents=True, exist_ok=True)
        self._run(self.files, list(files), on_bytes)
        for file in files:
            path = self.files / file.path
            if path.is_symlink() or not path.is_file():
                raise SourceFailed(f"did not deliver {file.path}", fix="Run the command again.")

    def _run(
        self, into: Path, files: list[RemoteFile] | None, on_bytes: Callable[[int], None]
    ) -> None:
        request = Request(
            endpoint=self.url,
            repository=self.repository,
            revision=self.revision,
            into=str(into),
            files=None
            if files is None
            else [{"Path": file.path, "Size": file.size, "Sha256": file.sha256} for file in files],
        )
        task = child.Task(
            module="qwen_openai.models.hub_child",
            arguments=[json.dumps(request)],
            watch=self.files,
            stall=_STALL,
            environment={
                "MODELSCOPE_CACHE": str(self.folder / "state"),  # its lock files
                # The client allows a file one hour in all; a slow line is no failure.
                "MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT": os.environ.get(
                    "MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT", str(_WEEK)
                ),
                "TQDM_DISABLE": "1",
            },
        )
        ended = child.run(task, on_bytes)
        if ended.code != 0:
            raise SourceFailed(
                f"said: {ended.last_line()[:300]}",
                fix="Check the model's name and revision on ModelScope, and your access to it.",
            )


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of known size out of a repository, as a source of a catalogue entry."""

    source: ModelScopeFile
    size: int
    folder: Path
    url: str

    @property
    def label(self) -> str:
        return self._repository.label

    @property
    def _repository(self) -> HubRepository:
        return HubRepository(self.source.repository, self.source.revision, self.folder, self.url)

    def probe(self) -> None:
        self._repository.probe()

    def present(self) -> int:
        """Bytes that an earlier run left."""
        return child.folder_size(self._repository.files)

    def space(self) -> int:
        """Bytes that fetching still takes on the disk."""
        return max(0, self.size - self.present())

    def fetch(self, on_bytes: Callable[[int], None]) -> Path:
        """Return the file's path. Raises SourceFailed."""
        file = RemoteFile(self.source.file, self.size)
        self._repository.download([file], on_bytes)
        return self._repository.files / self.source.file

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def vetted(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Return ``files`` if each name stays inside its folder, names no other twice, and no size is
    negative. Raises SourceFailed otherwise."""
    names = set()
    for file in files:
        path = PurePosixPath(file.path)
        parts = file.path.split("/")
        if path.is_absolute() or {"", ".", ".."} & set(parts) or set("\\\0:") & set(file.path):
            raise _unsafe(f"its listing names {file.path[:80]!r}, which leads out of its folder")
        if file.size < 0 or str(path).casefold() in names:
            raise _unsafe(f"its listing is at odds with itself about {file.path[:80]!r}")
        names.add(str(path).casefold())
    return list(files)


def _unsafe(reason: str) -> SourceFailed:
    return SourceFailed(reason, fix="Do not use this repository; tell its owner.")
