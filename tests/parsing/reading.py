"""What a parser of calls makes of a text, however the text is split."""

from collections.abc import Iterable
from dataclasses import dataclass

from qwen_openai.parsing.calls import CallArguments, CallParser, CallStart, Piece
from tests.parsing.split import split


@dataclass(frozen=True)
class Call:
    """A call with all its arguments."""

    name: str
    arguments: str


def together(pieces: Iterable[Piece]) -> list[str | Call]:
    """Pieces with neighbouring texts joined, and calls whole."""
    found: list[str | Call] = []
    for piece in pieces:
        last = found[-1] if found else None
        if isinstance(piece, CallStart):
            found.append(Call(piece.name, ""))
        elif isinstance(piece, CallArguments):
            assert piece.text, "no empty arguments"
            assert isinstance(last, Call), "arguments belong to the call begun last"
            found[-1] = Call(last.name, last.arguments + piece.text)
        elif isinstance(last, str):
            found[-1] = last + piece
        else:
            assert piece, "no empty text"
            found.append(piece)
    return found


def read(
    parser: CallParser, text: str, cuts: Iterable[int] = (), *, cut: bool = False
) -> list[str | Call]:
    """What comes of a text in pieces; `cut` where its length ended it."""
    pieces: list[Piece] = []
    for part in split(text, list(cuts)):
        pieces += parser.feed(part)
        if parser.ended:
            break
    pieces += parser.flush(cut)
    found = together(pieces)
    assert parser.calls == sum(isinstance(each, Call) for each in found)
    return found
