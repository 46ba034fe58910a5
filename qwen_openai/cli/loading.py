"""Shows on stderr that a model loads, and how far: a spinner with share and time on a terminal,
elsewhere a plain line at the start and one every ten seconds.
"""

import contextlib
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_EVERY = 10.0


class Loading:
    """A context manager around the loading; `report` may be called from any thread meanwhile.

    The spinner leaves no trace. Plain lines come at most every ``every`` seconds, with one at the
    end where there were any."""

    def __init__(self, text: str, *, console: Console | None = None, every: float = _EVERY) -> None:
        self._text = text
        self._console = console or Console(stderr=True)
        self._every = every
        self._began = self._said = time.monotonic()
        self._percent = -1
        self._has_said = False
        self._spinner: Progress | None = None

    def __enter__(self) -> Self:
        self._began = self._said = time.monotonic()
        if self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._spinner = Progress(*columns, console=self._console, transient=True)
            self._spinner.start()
            self._spinner.add_task(self._text)
        else:
            self._line(f"{self._text} ...")
        return self

    def report(self, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` weights are loaded."""
        percent = 100 * done // max(total, 1)
        if percent == self._percent:
            return
        self._percent = percent
        if self._spinner is not None:
            for task in self._spinner.task_ids:
                self._spinner.update(
                    task, description=f"{self._text}, {percent}% of the weights", refresh=True
                )
        elif time.monotonic() - self._said >= self._every:
            self._said, self._has_said = time.monotonic(), True
            self._line(f"{self._text}: {percent}% of the weights")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()
        elif self._has_said and error is None:
            self._line(f"{self._text}: done in {time.monotonic() - self._began:.0f} s")

    def _line(self, text: str) -> None:
        # Of a pipe that nobody reads any more rich makes SystemExit: no reason to stop loading.
        with contextlib.suppress(OSError, SystemExit):
            self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
