"""The calls in another server's answer: pieces that come in any of the known forms to events.

Sans I/O. A call is known by its `index`; servers are known that leave it out, that number all calls
0, that leave out ids, and that send arguments as an object.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import orjson

from qwen_openai.core import Event, Job, ToolCallArguments, ToolCallStart
from qwen_openai.engines.upstream.failures import Reporter


@dataclass(slots=True)
class _Call:
    """``number`` is None until its name has come, and with it its start."""

    id: str
    name: str
    number: int | None = None
    wrote: bool = False
    held: list[str] = field(default_factory=list)


class Calls:
    """Takes the pieces of one answer's calls. ``made`` is how many have started."""

    __slots__ = ("_by_index", "_index", "_job", "_latest", "made")

    def __init__(self, job: Job) -> None:
        self.made = 0
        self._job = job
        self._index = job.choice
        self._by_index: dict[object, _Call] = {}
        self._latest: _Call | None = None

    def add(self, pieces: Sequence[object], *, whole: bool) -> list[Event]:
        """Return the events of a delta's calls; those of a ``whole`` message are one call each."""
        events: list[Event] = []
        for piece in pieces:
            if type(piece) is not dict:
                raise TypeError
            function = piece.get("function") or {}
            call = self._call(piece, function, new=whole)
            if call.number is None and call.name:
                call.number, self.made = self.made, self.made + 1
                events.append(ToolCallStart(self._index, call.number, self._id(call), call.name))
            arguments = function.get("arguments")
            if arguments is not None and type(arguments) is not str:
                arguments = orjson.dumps(arguments).decode()
            if arguments:
                self._write(call, arguments, events)
        return events

    def end(self, report: Reporter, *, cut: bool) -> list[Event]:
        """Return what is missing: a call without arguments has none, which is `{}`, but one that
        the answer's length cut off. Raises UpstreamFailed for a call that was never named."""
        events: list[Event] = []
        for call in self._by_index.values():
            if call.number is None:
                raise report.failed("sent a call without a name")
            if not call.wrote and not cut:
                events.append(ToolCallArguments(self._index, call.number, "{}"))
        return events

    def _write(self, call: _Call, text: str, events: list[Event]) -> None:
        if call.number is None:
            call.held.append(text)
            return
        text = "".join((*call.held, text))
        call.held.clear()
        call.wrote = True
        events.append(ToolCallArguments(self._index, call.number, text))

    def _call(self, piece: dict[str, object], function: dict[str, object], *, new: bool) -> _Call:
        """Return the call that a piece belongs to, perhaps a new one."""
        id, name, index = piece.get("id"), function.get("name"), piece.get("index")
        id = id if type(id) is str else ""
        name = name if type(name) is str else ""
        known = self._latest if index is None else self._by_index.get(index)
        other = known is not None and bool(name and known.name and id and id != known.id)
        if new or known is None or other or (index is None and name):
            known = _Call(id, name)
            key: object = index
            if index is None or key in self._by_index:
                key = ("further", len(self._by_index))
                if index is not None:  # what comes for this number now is the new call's
                    self._by_index[key] = self._by_index.pop(index)
                    key = index
            self._by_index[key] = known
        else:
            known.id, known.name = known.id or id, known.name or name
        self._latest = known
        return known

    def _id(self, call: _Call) -> str:
        if call.id:
            return call.id
        named = f"{self._job.id}/{self._index}/upstream/{call.number}"
        return f"call_{blake2b(named.encode(), digest_size=12).hexdigest()}"
