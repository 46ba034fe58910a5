"""How a mock upstream behaves, as one value, and the text form in which tests ask for it.

The form is `status=429,retry_after=3600`. A request asks for it after "mock:" in its `user`, its
`model` or the text of its last message; the control endpoint sets it for all other requests.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

Hang = Literal["", "headers", "first", "token"]
# done: as it should be; nodone: closed after the finish; nofinish: [DONE] without one; end: closed
# in an orderly way after `at` pieces; cut: closed there without the end of the transfer coding;
# reset: by RST; error: an error event; named: one that says so by its name too; nonjson, long: a
# line that is no JSON, one of 10 MB; html: a page; comments: nothing but comments for ever.
Ending = Literal[
    "done",
    "nodone",
    "nofinish",
    "end",
    "cut",
    "reset",
    "error",
    "named",
    "nonjson",
    "long",
    "html",
    "comments",
]
# lf: as usual; crlf: the other line end; bytes: cut into pieces of a byte or few; hundred: each
# event in a hundred packets; packed: all events in one packet; comments: a comment before each.
Framing = Literal["lf", "crlf", "bytes", "hundred", "packed", "comments", "bare"]
MARK = "mock:"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a mock does with a request. Times are seconds.

    ``status`` other than 200 is answered with an error body, or with a page of ``html``;
    ``retry_after`` and ``location`` are those headers' values; ``leak`` repeats the request's
    Authorization header and the mock's own address in the error's text. ``model`` is the name that
    the answer claims.
    ``deltas`` is how many pieces the answer has; else what the request's limit says, or 16.
    ``delay`` passes before the headers, ``first`` between them and the first piece, ``gap`` between
    two pieces. ``at`` is the piece at which ``hang`` and ``ending`` happen.
    """

    status: int = 200
    retry_after: str = ""
    code: str = ""
    location: str = ""
    leak: bool = False
    html: bool = False
    gzip: bool = False
    model: str = ""
    usage: bool = True
    logprobs: int = 0
    deltas: int | None = None
    wide: bool = False
    delay: float = 0.0
    first: float = 0.0
    gap: float = 0.0
    at: int = 3
    hang: Hang = ""
    ending: Ending = "done"
    framing: Framing = "lf"


def parse(text: str, base: Behaviour) -> Behaviour:
    """Return ``base`` with what ``text`` says changed. Raises ValueError for what it cannot say."""
    fields = {field.name: field for field in dataclasses.fields(Behaviour)}
    changes: dict[str, object] = {}
    for part in filter(None, text.strip().split(",")):
        name, _, value = part.strip().partition("=")
        if name not in fields:
            raise ValueError(f"a mock has no {name!r}")
        changes[name] = _value(fields[name].type, name, value)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]  # of the fields' types


def _value(kind: object, name: str, value: str) -> object:
    if kind is bool:
        return value in ("", "1", "true")
    if kind is int or kind == int | None:
        return int(value)
    if kind is float:
        return float(value)
    if choices := get_args(kind):
        if value not in choices:
            raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}")
        return value
    return value


def asked_for(texts: list[str], base: Behaviour) -> Behaviour:
    """Return what the first of the texts that has the mark asks for, ``base`` where none has."""
    for text in texts:
        _, mark, said = text.partition(MARK)
        if mark:
            return parse(said.split()[0], base)
    return base
