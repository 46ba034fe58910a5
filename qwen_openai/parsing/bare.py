"""An answer that is nothing but calls, as bare JSON or in a fence, without the tags that were asked
for: a habit of some models (`families.Family.bare_calls`).

Sans I/O. From the first character that is not blank, the answer must be objects such as
`{"name": "f", "arguments": {}}`, in a list or a row, in blocks of code or not; anything else goes
to the parser of calls in tags. Held back is only what may still become a call.
"""

from collections.abc import Callable, Iterable

from qwen_openai.parsing.calls import CallParser, Piece, Reading, joined
from qwen_openai.parsing.hermes import JsonCall
from qwen_openai.parsing.tagged import CLOSER

_FENCE = "```"
_JSON_FENCE = "```json"


class BareCalls:
    """Feed text until `ended`; get back text and calls in order. Text behind a call stays text, and
    ends the search for bare calls; so does an object that is no call."""

    def __init__(self, names: Iterable[str], inner: CallParser, *, parallel: bool = True) -> None:
        """`names` are the tools that may be called; `inner` gets what is no bare call. Without
        `parallel` the first call is the end."""
        self._names = frozenset(names)
        self._inner = inner
        self._parallel = parallel
        self._calls = 0
        self._ended = False
        self._out: list[Piece] = []
        self._read: Callable[[str, int], int] = self._read_between
        self._body: JsonCall | None = None
        # What is unread; what was read and becomes text if no call comes of it.
        self._held = ""
        self._raw: list[str] = []
        # What is open around the calls, and whether a call stands right before, without a comma.
        self._fence = False
        self._list = False
        self._behind_call = False
        self._strip = False

    @property
    def calls(self) -> int:
        """See `calls.CallParser`."""
        return self._calls + self._inner.calls

    @property
    def ended(self) -> bool:
        """See `calls.CallParser`."""
        return self._ended or self._inner.ended

    @property
    def inside(self) -> bool:
        """See `calls.CallParser`. Before its name an object may be any."""
        return self._inner.inside if self._body is None else self._body.named

    def feed(self, text: str) -> list[Piece]:
        """See `calls.CallParser`."""
        text, place = self._held + text, 0
        while place < len(text) and not self.ended:
            read, before = self._read, place
            place = read(text, place)
            if place == before and self._read == read:
                break
        self._held = text[place:]
        return self._take()

    def flush(self, cut: bool) -> list[Piece]:
        """See `calls.CallParser`."""
        rest, self._held = self._held, ""
        if self._ended:
            return []
        if self._body is not None:
            self._body.end(rest, cut)
            self._take_from(self._body)
        elif not self._calls:
            self._raw.append(rest)
        # Behind a call, what is open around further ones is nothing.
        if self._read == self._read_between and not self._calls:
            self._give_up()
        self._out += self._inner.flush(cut)
        return self._take()

    def _take(self) -> list[Piece]:
        out, self._out = self._out, []
        return joined(out)

    def _give_up(self) -> None:
        """There are no more bare calls: what was held, and all to come, is for the other parser."""
        raw, self._raw = "".join(self._raw), []
        self._read, self._strip = self._read_text, self._calls > 0
        self._read_text(raw, 0)

    # Each of these reads at a place in one state and returns the next place.

    def _read_text(self, text: str, place: int) -> int:
        rest = text[place:].lstrip() if self._strip else text[place:]
        if rest:
            self._strip = False
            self._out += self._inner.feed(rest)
        return len(text)

    def _read_between(self, text: str, place: int) -> int:
        """Read what stands around calls."""
        char = text[place]
        if char.isspace():
            self._raw.append(char)
        elif char == "{" and not (self._list and self._behind_call):
            self._body = JsonCall(
                self._names, exact=True, closer=f"\n{_FENCE}" if self._fence else CLOSER
            )
            self._read, self._behind_call = self._read_call, False
            return place
        elif char == "[" and not self._list:
            self._list, self._behind_call = True, False
            self._raw.append(char)
        elif char == "]" and self._list and self._behind_call:
            self._list, self._raw = False, []
        elif char == "," and self._list and self._behind_call:
            self._behind_call = False
            self._raw.append(char)
        elif char == "`" and not self._list:
            return self._read_fence(text, place)
        else:
            self._give_up()
            return place
        return place + 1

    def _read_fence(self, text: str, place: int) -> int:
        rest = text[place : place + len(_JSON_FENCE)]
        if self._fence:
            if len(rest) < len(_FENCE) and _FENCE.startswith(rest):
                return place
            if rest.startswith(_FENCE) and self._behind_call:
                self._fence, self._raw = False, []
                return place + len(_FENCE)
            self._give_up()
            return place
        if len(rest) < len(_JSON_FENCE) and _JSON_FENCE.startswith(rest):
            return place
        if not rest.startswith(_FENCE):
            self._give_up()
            return place
        self._fence, self._behind_call = True, False
        opening = _JSON_FENCE if rest == _JSON_FENCE else _FENCE
        self._raw.append(opening)
        return place + len(opening)

    def _read_call(self, text: str, place: int) -> int:
        body = self._body
        if body is None:
            return place
        end = body.feed(text, place)
        if not body.begun:
            self._raw.append(text[place:end])
        self._take_from(body)
        return end

    def _take_from(self, body: JsonCall) -> None:
        pieces = body.take()
        if body.begun:
            self._raw = []
        self._out += pieces
        if body.state is Reading.OPEN:
            return
        self._body = None
        if body.state is Reading.FAILED:
            self._give_up()
            return
        self._calls += 1
        self._behind_call, self._read = True, self._read_between
        self._ended = not self._parallel
