"""What every parser of calls has in common: text in, safe text and pieces of calls out.

Sans I/O. Knows neither a syntax (`hermes`, `xml`, `bare`, `react`) nor events (`chain`).
"""

from dataclasses import dataclass
from enum import Enum, auto
from itertools import groupby
from typing import Protocol

# So many characters of arguments, or of what stands behind a call, wait for what comes next.
HOLD = 64


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call of one of the job's tools begins."""

    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of the JSON text of the arguments of the call begun last; never empty."""

    text: str


Piece = str | CallStart | CallArguments


class CallParser(Protocol):
    """Feed text until `ended`; get back text and calls in order, the same for any split."""

    @property
    def calls(self) -> int:
        """How many calls have begun."""

    @property
    def ended(self) -> bool:
        """Whether the answer is over for the parser: what comes behind is no part of it."""

    @property
    def inside(self) -> bool:
        """Whether what comes next stands in a call, as far as can be told."""

    def feed(self, text: str) -> list[Piece]:
        """Take the next piece of text."""

    def flush(self, cut: bool) -> list[Piece]:
        """Return what is held back: the answer is over, ``cut`` where its length ended it."""


class Reading(Enum):
    """How far the reading of one call is."""

    OPEN = auto()
    DONE = auto()
    FAILED = auto()  # it is no call, and nothing of it went out


class CallBody(Protocol):
    """Reads one call. What comes out of it once `begun` is never taken back."""

    @property
    def state(self) -> Reading: ...

    @property
    def begun(self) -> bool:
        """Whether its start went out."""

    def feed(self, text: str, place: int) -> int:
        """Read on from a place; return where it stopped. What is unread while the call is open, a
        bounded tail, is to be fed again with more behind it."""

    def take(self) -> list[Piece]:
        """Return what can go out and was not returned before."""

    def end(self, rest: str, cut: bool) -> None:
        """The answer is over behind ``rest``, which is unread: be done or fail."""


def joined(pieces: list[Piece]) -> list[Piece]:
    """Return pieces with neighbouring texts, and neighbouring arguments, made one."""
    if len(pieces) < 2:
        return pieces
    out: list[Piece] = []
    for kind, run in groupby(pieces, key=type):
        if kind is CallStart:
            out += run
        elif kind is CallArguments:
            out.append(CallArguments("".join(p.text for p in run if isinstance(p, CallArguments))))
        else:
            out.append("".join(map(str, run)))
    return out
