"""Calls in tags, anywhere in an answer: finds where one begins, lets another machine read it, and
keeps the text around it.

Sans I/O. Knows the tags, not what is in them (`hermes`, `xml`). Held back are the beginning of a
tag, blanks that may stand before a call, and what its machine holds.
"""

import re
from collections.abc import Callable, Sequence

from qwen_openai.parsing.calls import HOLD, CallBody, Piece, Reading, joined

OPENER = "<tool_call>"
CLOSER = "</tool_call>"


class TaggedCalls:
    """Feed text until `ended`; get back text and calls in order.

    Blanks between text and a call are dropped, and between calls; text behind a call begins on a
    line of its own. What does not become a call stays text, as written. Behind a call up to
    `calls.HOLD` characters before its closing tag are dropped.
    """

    def __init__(
        self,
        openers: Sequence[str],
        new_body: Callable[[], CallBody],
        *,
        parallel: bool,
        leading: bool = False,
    ) -> None:
        """With an opener other than `OPENER` a body begins at the opener, else behind it. Without
        `parallel` the first call is the end. With `leading` there is none behind text."""
        self.calls = 0
        self.ended = False
        self._openers = tuple(openers)
        self._opener = re.compile("|".join(map(re.escape, openers)))
        self._tag = re.compile("|".join(map(re.escape, (*openers, CLOSER))))
        self._new_body = new_body
        self._parallel = parallel
        self._leading = leading
        self._out: list[Piece] = []
        self._read: Callable[[str, int], int] = self._read_text
        self._body: CallBody | None = None
        self._begun = False
        # What is unread; blanks at the end of the text; the call so far, while it may be none.
        self._held = ""
        self._blanks: list[str] = []
        self._raw: list[str] = []
        self._wrote = False
        self._behind_call = False

    @property
    def inside(self) -> bool:
        """See `calls.CallParser`."""
        return self._body is not None

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
        if self.ended:
            return []
        if self._body is not None:
            self._end_body(self._body, rest, cut)
        elif not (self._behind_call and CLOSER.startswith(rest)):
            self._write(rest)
        if not self._behind_call:
            self._out += self._blanks
        return self._take()

    def _take(self) -> list[Piece]:
        out, self._out = self._out, []
        return joined(out)

    def _write(self, text: str) -> None:
        """Let text out, but blanks at its end, which may stand before a call."""
        solid = text.rstrip()
        if not solid:
            if text:
                self._blanks.append(text)
            return
        if not self._behind_call:
            self._out += self._blanks
        else:
            solid = solid.lstrip()
            if self._wrote:
                self._out.append("\n")
        self._out.append(solid)
        self._wrote, self._behind_call = True, False
        end = text[len(text.rstrip()) :]
        self._blanks = [end] if end else []

    def _read_text(self, text: str, place: int) -> int:
        if self._leading and not self._may_lead(text[place:].lstrip()):
            self._write(text[place:])
            return len(text)
        found = self._opener.search(text, place)
        if found is None:
            end = held_tag(text, place, self._openers)
            self._write(text[place:end])
            return end
        self._write(text[place : found.start()])
        self._body, self._read, self._begun = self._new_body(), self._read_call, False
        self._raw = [OPENER] if found[0] == OPENER else []
        return found.end() if found[0] == OPENER else found.start()

    def _may_lead(self, text: str) -> bool:
        """Whether nothing but calls came so far, and the text may begin another."""
        openers = self._openers
        return not self._wrote and any(text.startswith(e) or e.startswith(text) for e in openers)

    def _read_call(self, text: str, place: int) -> int:
        body = self._body
        if body is None:
            return place
        end = body.feed(text, place)
        if not body.begun:
            self._raw.append(text[place:end])
        self._take_from(body)
        if body.state is not Reading.OPEN:
            self._close_body(body)
        return end

    def _end_body(self, body: CallBody, rest: str, cut: bool) -> None:
        """The answer is over inside a call."""
        body.end(rest, cut)
        self._take_from(body)
        if body.state is Reading.FAILED:
            self._raw.append(rest)
        self._close_body(body)

    def _take_from(self, body: CallBody) -> None:
        """Let out what a call lets out. Once it has begun, it is no text."""
        pieces = body.take()
        if body.begun and not self._begun:
            self.calls += 1
            self._begun = self._behind_call = True
            self._blanks, self._raw = [], []
        self._out += pieces

    def _close_body(self, body: CallBody) -> None:
        self._body = None
        if body.state is Reading.FAILED:
            raw, self._raw = "".join(self._raw), []
            self._read = self._read_text
            self._write(raw)
            return
        self._read = self._read_behind
        self.ended = not self._parallel

    def _read_behind(self, text: str, place: int) -> int:
        """Look for the closing tag of a call that is complete."""
        while place < len(text) and text[place].isspace():
            place += 1
        found = self._tag.search(text, place, place + HOLD + len(CLOSER))
        if found is None and len(text) - place < HOLD + len(CLOSER):
            return place
        self._read = self._read_text
        if found is None:
            return place
        if found[0] == CLOSER:
            return found.end()
        self._write(text[place : found.start()])
        return found.start()


def held_tag(text: str, place: int, tags: Sequence[str]) -> int:
    """Return where the text ends that is no beginning of a tag. A tag has one "<", as its first
    character."""
    start = text.rfind("<", place)
    if start < 0:
        return len(text)
    end = text[start:]
    return start if any(tag.startswith(end) for tag in tags) else len(text)
