"""`qwen-openai pull` and `qwen-openai models`: the terminal's side of `models`.

Draws the progress of a pull: a bar with speed and time left on a terminal, plain lines elsewhere.
`serve` uses the same drawing through `pull_progress`. The commands raise StartupError; the command
line as a whole turns it into a sentence and an exit code.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console, OverflowMethod
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from qwen_openai import settings
from qwen_openai.models.catalogue import DEFAULT_MODEL
from qwen_openai.models.checkpoint import Checkpoint, asks_for_code
from qwen_openai.models.inventory import Item, inventory
from qwen_openai.models.layout import default_home
from qwen_openai.models.progress import Progress
from qwen_openai.models.store import ModelFiles, PullOptions, Store
from qwen_openai.settings import Settings

_LINE_EVERY = 10.0  # seconds between two lines where there is no terminal to draw a bar on


class BarProgress:
    """A models.Progress drawn by rich."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._fresh = False

    def start(self, total_bytes: int, label: str) -> None:
        self._task = self._bars.add_task(label, total=total_bytes)
        self._fresh = True

    def advance(self, done_bytes: int) -> None:
        if self._task is None:
            return
        if self._fresh:  # what an earlier run left must not count as speed
            self._bars.reset(self._task, completed=done_bytes)
            self._fresh = False
        else:
            self._bars.update(self._task, completed=done_bytes)

    def note(self, sentence: str) -> None:
        self._bars.console.print(Text(sentence))

    def done(self) -> None:
        if self._task is not None:
            self._bars.stop_task(self._task)
            self._task = None


class LineProgress:
    """A models.Progress of plain lines, one every ten seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._label = ""
        self._total = 0
        self._done = 0
        self._first: tuple[float, int] | None = None
        self._said = 0.0

    def start(self, total_bytes: int, label: str) -> None:
        self._label, self._total, self._done, self._first = label, total_bytes, 0, None
        self._said = time.monotonic()
        self._line(f"{label}: {megabytes(total_bytes)}")

    def advance(self, done_bytes: int) -> None:
        self._done = done_bytes
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done_bytes)
        if now - self._said >= _LINE_EVERY:
            self._said = now
            begun, before = self._first
            speed = (done_bytes - before) / max(now - begun, 0.001)
            left = f", {(self._total - done_bytes) / speed:.0f} s left" if speed else ""
            self._line(
                f"{self._label}: {megabytes(done_bytes)} of {megabytes(self._total)},"
                f" {megabytes(round(speed))}/s{left}"
            )

    def note(self, sentence: str) -> None:
        self._line(sentence)

    def done(self) -> None:
        if self._done >= self._total:
            self._line(f"{self._label}: done")

    def _line(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


@contextmanager
def pull_progress(console: Console | None = None) -> Iterator[Progress]:
    """Draw what a pull does, on standard error unless a console is given."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield LineProgress(console)
        return
    label = TextColumn("{task.description}", table_column=_column(ratio=1, overflow="ellipsis"))
    figures = (
        DownloadColumn(table_column=_column()),
        TransferSpeedColumn(table_column=_column()),
        TimeRemainingColumn(table_column=_column()),
    )
    with Bars(label, BarColumn(20), *figures, console=console, expand=True) as bars:
        yield BarProgress(bars)


def _column(ratio: int | None = None, overflow: OverflowMethod = "fold") -> Column:
    return Column(no_wrap=True, ratio=ratio, overflow=overflow)


def home_of(chosen: Settings) -> Path:
    """Return the cache folder that the settings mean, absolute."""
    return (chosen.home or default_home()).expanduser().absolute()


def obtain(chosen: Settings) -> ModelFiles | Checkpoint:
    """Return the model that the settings name, pulled first when it is not on disk.

    Raises StartupError.
    """
    store = Store(home_of(chosen))
    found = store.locate(chosen.model)
    if found is None:
        with pull_progress() as progress:
            found = store.pull(chosen.model, PullOptions(offline=chosen.offline), progress)
    return found


def pull(
    model: Annotated[
        str,
        typer.Argument(help="A name that `models` lists, a ModelScope id (org/name), or a path."),
    ] = DEFAULT_MODEL,
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit of a ModelScope repository; master if not given."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only verify what is on disk; use no network.")
    ] = False,
    home: Annotated[
        Path | None, typer.Option(help="Where models are kept; else QWEN_OPENAI_HOME.")
    ] = None,
) -> None:
    """Fetch a model, or go on with an interrupted fetch, and verify it."""
    flags = {"home": home, "offline": True if offline else None}
    chosen = settings.load(flags).settings
    store = Store(home_of(chosen))
    options = PullOptions(offline=chosen.offline, revision=revision)
    with pull_progress() as progress:
        found = store.pull(model, options, progress)
    if isinstance(found, ModelFiles):
        typer.echo(f"{found.name} is complete and verified: {found.weights}")
        return
    typer.echo(f"{found.name} is complete and verified: {found.folder}")
    if asks_for_code(found.folder):
        how = "converted while they load" if found.raw else "loaded without it"
        typer.echo(f"It asks for Python code of its own, which is not run: its weights are {how}.")


def models(
    home: Annotated[
        Path | None, typer.Option(help="Where models are kept; else QWEN_OPENAI_HOME.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
) -> None:
    """List the models that can be had by name, and those on disk."""
    chosen = settings.load({"home": home}).settings
    items = inventory(home_of(chosen))
    if json:
        listed = [asdict(item) | {"path": item.path and str(item.path)} for item in items]
        typer.echo(orjson.dumps(listed, option=orjson.OPT_INDENT_2))
        return
    Console().print(_table(items))


def _table(items: list[Item]) -> Table:
    table = Table("Name", "Size", "On disk", "Licence", "What it is", box=None, pad_edge=False)
    for item in items:
        table.add_row(
            Text(item.name, style="bold" if item.state == "present" else ""),
            megabytes(item.size) if item.size is not None else "?",
            _on_disk(item),
            item.licence or "see its repository",
            Text(item.description),
        )
    return table


def _on_disk(item: Item) -> str:
    if item.state == "present":
        return "yes"
    return f"partial, {megabytes(item.on_disk)}" if item.state == "partial" else "no"


def megabytes(count: int) -> str:
    """Show a number of bytes as people read it: "491 MB", "1.12 GB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
