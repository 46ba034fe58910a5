"""Shows on stderr that something long goes on: a spinner with the time passed, or a plain line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading(text: str) -> Iterator[None]:
    """Show ``text`` until the block ends; the spinner leaves no trace."""
    if not sys.stderr.isatty():
        sys.stderr.write(f"{text} ...\n")
        sys.stderr.flush()
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(text)
        yield
