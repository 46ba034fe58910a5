"""Models on disk: find what is there, pull what is not, and serve nothing that was not verified.

The only door of `models` for the rest of the program. A model's folder appears complete, in one
rename, under a lock; what is unfinished stays apart and is resumed. Knows neither HTTP routes nor
terminals.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from qwen_openai.errors import StartupError
from qwen_openai.models import layout, stamp
from qwen_openai.models.catalogue import CATALOGUE, Entry
from qwen_openai.models.checkpoint import (
    Checkpoint,
    is_checkpoint,
    read_checkpoint,
    tokenizer_file,
)
from qwen_openai.models.describe import Description, describe, load_description
from qwen_openai.models.progress import Progress
from qwen_openai.models.reference import (
    DEFAULT_REVISION,
    CatalogueRef,
    PathRef,
    Reference,
    RepositoryRef,
    parse,
)
from qwen_openai.models.sources import Workplace, fetch_entry, fetch_repository, otherwise

_TOKENIZER = "tokenizer.json"
_FILES = "files"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A GGUF model that can be served: all files are on disk, verified and described. Weights in
    other files are a `Checkpoint`."""

    name: str
    weights: Path
    tokenizer: Path
    description: Description


@dataclass(frozen=True, slots=True)
class PullOptions:
    """``offline``: use no network. ``revision``: of a ModelScope repository; None is master."""

    offline: bool = False
    revision: str | None = None


def free_space(folder: Path) -> int:
    """Return the free bytes of the disk that ``folder`` is on."""
    return shutil.disk_usage(folder).free


Found = ModelFiles | Checkpoint


def locate(model: str, *, home: Path) -> Found | None:
    """Return the model if it is on disk, complete, verified and described. Cheap: no hashing unless
    a file was touched since. Anything else, an unknown name included, is None; `pull` says why."""
    return Store(home.expanduser().absolute()).locate(model)


def pull(model: str, *, home: Path, options: PullOptions, progress: Progress) -> Found:
    """Return the model, fetched first if need be; one that is there is verified by its full hash
    and described anew.

    ``model`` is a catalogue name, a ModelScope id (``org/name``, ``org/name/file.gguf``, each with
    ``@revision`` if wanted), a path to a .gguf file or a folder with one, or a folder with
    config.json, weights and tokenizer. Raises StartupError.
    """
    return Store(home.expanduser().absolute()).pull(model, options, progress)


@dataclass(frozen=True, slots=True)
class Store:
    """A cache folder, the catalogue that fills it, and two doors to the outside that tests replace:
    what reads a GGUF file, and what tells the free bytes of a disk."""

    home: Path
    catalogue: tuple[Entry, ...] = CATALOGUE
    describe: Callable[[Path, Path], Description] = describe
    free_space: Callable[[Path], int] = free_space

    def locate(self, model: str, revision: str | None = None) -> Found | None:
        """See `locate`."""
        try:
            ref = parse(model, self.catalogue, revision)
            if isinstance(ref, PathRef):
                if is_checkpoint(ref.path):
                    return read_checkpoint(ref.path)
                weights = _only_gguf(ref.path)
                return self._files(weights.stem, layout.local_folder(weights, self.home), weights)
            folder = self._pulled_folder(ref)
            return self._model(ref, folder) if self._is_complete(ref, folder) else None
        except (StartupError, OSError):
            return None

    def pull(self, model: str, options: PullOptions, progress: Progress) -> Found:
        """See `pull`. What is read out of a GGUF file is read anew each time, so that this mends it
        too."""
        with _disk_errors(self.home):
            ref = parse(model, self.catalogue, options.revision)
            if isinstance(ref, PathRef):
                if is_checkpoint(ref.path):
                    return self._ready(read_checkpoint(ref.path))
                weights = _only_gguf(ref.path)
                folder = self._describe_in_place(weights, progress)
                return _read_back(self._files(weights.stem, folder, weights), weights, folder)
            folder = self._fetched(ref, options, progress)
            found = self._model(ref, folder)
            if isinstance(found, Checkpoint):
                return self._ready(found)
            return _read_back(found, folder / _FILES, folder)

    def _ready(self, checkpoint: Checkpoint) -> Checkpoint:
        """Make what serving the checkpoint needs beside it."""
        tokenizer_file(checkpoint, self.home)
        return checkpoint

    def _pulled_folder(self, ref: CatalogueRef | RepositoryRef) -> Path:
        """Return the model's folder. Where no revision was asked for and the default one is absent,
        the only one that was pulled will do."""
        folder = layout.folder_of(ref, self.home)
        if isinstance(ref, RepositoryRef) and ref.revision is None and not folder.exists():
            ending = folder.name.removeprefix(DEFAULT_REVISION)
            repository = layout.repository_folder(ref, self.home)
            pulled = [
                each
                for each in (repository.iterdir() if repository.is_dir() else ())
                if (each.name.endswith(ending) if ending else "+" not in each.name)
            ]
            if len(pulled) == 1:
                return pulled[0]
        return folder

    def _is_complete(self, ref: CatalogueRef | RepositoryRef, folder: Path) -> bool:
        found = stamp.read(folder)
        return found is not None and _matches(ref, found) and stamp.is_intact(folder, found)

    def _model(self, ref: CatalogueRef | RepositoryRef, folder: Path) -> Found | None:
        weights = _weights(ref, folder)
        name = ref.entry.name if isinstance(ref, CatalogueRef) else ref.repository
        if weights is None:
            return read_checkpoint(folder / _FILES, name)
        return self._files(name, folder, weights)

    def _files(self, name: str, folder: Path, weights: Path) -> ModelFiles | None:
        description = load_description(folder)
        tokenizer = folder / _TOKENIZER
        if description is None or not tokenizer.is_file():
            return None
        return ModelFiles(name, weights, tokenizer, description)

    def _fetched(
        self, ref: CatalogueRef | RepositoryRef, options: PullOptions, progress: Progress
    ) -> Path:
        """Return the model's folder, complete, verified and described anew."""
        folder = layout.folder_of(ref, self.home)
        name = _name(ref)
        with self._locked(folder, name, progress) as waited:
            just_pulled = waited and self._is_complete(ref, folder)
            if just_pulled or self._is_sound(ref, folder, progress):
                if (weights := _weights(ref, folder)) is not None:
                    self.describe(weights, folder)
                return folder
            if options.offline:
                raise StartupError(
                    f"{name} is not on this machine, and --offline forbids to fetch it.",
                    fix=f"Leave --offline out, {otherwise(name)}",
                )
            self._assemble(ref, folder, progress)
        return folder

    def _is_sound(
        self, ref: CatalogueRef | RepositoryRef, folder: Path, progress: Progress
    ) -> bool:
        """Whether the model is there with the right hash, every byte of it read again."""
        found = stamp.read(folder)
        if found is None or not _matches(ref, found):
            return False
        progress.start(found.size, f"Verifying {_name(ref)}")
        try:
            bad = stamp.damaged(folder, found, progress.advance)
        finally:
            progress.done()
        if bad is not None:
            progress.note(f"{folder / bad} is damaged or incomplete; it is fetched again.")
        return bad is None and stamp.is_intact(folder, found)

    def _assemble(
        self, ref: CatalogueRef | RepositoryRef, folder: Path, progress: Progress
    ) -> None:
        """Fetch, stamp and describe apart, then let the folder appear in one step."""
        place = Workplace(layout.partial_folder(folder, self.home), self.free_space)
        if isinstance(ref, CatalogueRef):
            done = fetch_entry(ref.entry, place, progress)
        else:
            done = fetch_repository(ref, place, progress)
        weights = _weights(ref, place.ready)
        if weights is not None:
            self.describe(weights, place.ready)
        stamp.write(done, place.ready)
        _replace(place.ready, folder, place.partial / "old")
        shutil.rmtree(place.partial, ignore_errors=True)

    def _describe_in_place(self, weights: Path, progress: Progress) -> Path:
        """Describe a file that lies elsewhere anew; return the folder of its description."""
        folder = layout.local_folder(weights, self.home)
        with self._locked(folder, weights.name, progress):
            if folder.exists():  # of the same file: mended in place, for one who reads it now
                self.describe(weights, folder)
                return folder
            partial = layout.partial_folder(folder, self.home)
            partial.mkdir(parents=True, exist_ok=True)
            self.describe(weights, partial)
            for older in folder.parent.glob(f"{folder.name.split('-')[0]}-*"):
                shutil.rmtree(older)
            _replace(partial, folder, partial.with_name(partial.name + ".old"))
        return folder

    @contextmanager
    def _locked(self, folder: Path, name: str, progress: Progress) -> Iterator[bool]:
        """Hold the model's lock; yields whether another pull had to be waited for."""
        path = layout.lock_file(folder, self.home)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        waited = False
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waited = True
            progress.note(f"Another process is pulling {name}; waiting for it.")
            lock.acquire()
        try:
            yield waited
        finally:
            lock.release()


def _read_back(found: ModelFiles | None, weights: Path, folder: Path) -> ModelFiles:
    if found is None:
        raise StartupError(
            f"What was read out of {weights} cannot be read back from {folder}.",
            fix="Delete that folder and try again.",
        )
    return found


def _name(ref: CatalogueRef | RepositoryRef) -> str:
    return ref.entry.name if isinstance(ref, CatalogueRef) else ref.name


def _matches(ref: Reference, found: stamp.Stamp) -> bool:
    """Whether a stamp is for what the reference means today; a catalogue may have changed."""
    if not isinstance(ref, CatalogueRef):
        return True
    wanted = (f"{_FILES}/{ref.entry.file}", ref.entry.size, ref.entry.sha256)
    return [(file.name, file.size, file.sha256) for file in found.files] == [wanted]


def _weights(ref: CatalogueRef | RepositoryRef, folder: Path) -> Path | None:
    """Return the GGUF file in a model's folder; None when it has none, or several."""
    if isinstance(ref, CatalogueRef):
        return folder / _FILES / ref.entry.file
    found = [path for path in (folder / _FILES).rglob("*") if path.suffix.lower() == ".gguf"]
    return found[0] if len(found) == 1 else None


def _only_gguf(path: Path) -> Path:
    """Return ``path``, or the one GGUF file in it when it is a folder. Raises StartupError."""
    if path.is_file():
        return path
    found = sorted(each for each in path.iterdir() if each.suffix.lower() == ".gguf")
    if len(found) == 1:
        return found[0].resolve()
    names = ", ".join(each.name for each in found[:8])
    raise StartupError(
        f"The folder {path} holds {len(found)} GGUF files{': ' * bool(names)}{names}.",
        fix="Give the path of the .gguf file itself."
        if found
        else "Give a folder that has one, or one with config.json, weights and tokenizer.",
    )


def _replace(new: Path, folder: Path, aside: Path) -> None:
    """Rename ``new`` to ``folder``, moving what was there ``aside`` and deleting it."""
    shutil.rmtree(aside, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(aside)
    new.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _disk_errors(home: Path) -> Iterator[None]:
    """Turn what the disk refuses into one sentence."""
    try:
        yield
    except OSError as error:
        raise StartupError(
            f"The cache folder {home} cannot be used: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}.",
            fix="Mend its rights or its disk, or choose another with QWEN_OPENAI_HOME.",
        ) from error
