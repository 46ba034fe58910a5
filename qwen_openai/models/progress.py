"""How a pull tells what it does: a small protocol, so that `models` knows no terminal.

`cli.pull` draws a bar from it.
"""

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Told by a pull, from one thread, in the order start, advance…, done; note at any time."""

    def start(self, total_bytes: int, label: str) -> None:
        """A phase of ``total_bytes`` begins, such as a download or a verification."""

    def advance(self, done_bytes: int) -> None:
        """So many bytes of the phase are done in all (not since the last call). On a resumed
        download the first call already counts what an earlier run left."""

    def note(self, sentence: str) -> None:
        """Something the user should read: a source passed over, a wait for another pull."""

    def done(self) -> None:
        """The phase begun last has ended, well or badly."""


class Untold:
    """A Progress that tells nobody."""

    def start(self, total_bytes: int, label: str) -> None:
        pass

    def advance(self, done_bytes: int) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    def done(self) -> None:
        pass


def after(begin: int, tell: Callable[[int], None]) -> Callable[[int], None]:
    """Return a function that tells its bytes on top of the ``begin`` bytes done before."""
    return lambda done: tell(begin + done)
