"""Calls as JSON: one object with a name and arguments, read while it comes; and those in
`<tool_call>` tags, as Qwen2.5 and Qwen3 write them.

Sans I/O. The format is that of the models' chat templates; what is tolerated is in docs/parsing.md.
"""

from collections.abc import Callable, Iterable

import orjson

from qwen_openai.parsing.calls import HOLD, CallArguments, CallStart, Piece, Reading
from qwen_openai.parsing.json_text import JsonText
from qwen_openai.parsing.tagged import CLOSER, OPENER, TaggedCalls

# A key or a name that is longer, as written, is none that this format knows.
_LONGEST_NAME = 512
# What models write as it is in strings, code above all, though JSON wants it escaped.
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def hermes_calls(
    names: Iterable[str], *, parallel: bool = True, leading: bool = False
) -> TaggedCalls:
    """Return the parser of calls in tags; `names` are the tools that may be called. Without
    `parallel` the first call is the end; with `leading` they begin the answer, or are text."""
    known = frozenset(names)
    return TaggedCalls((OPENER,), lambda: JsonCall(known), parallel=parallel, leading=leading)


class JsonCall:
    """Reads one `{"name": ..., "arguments": {...}}`, with the keys in any order.

    Its start and the first arguments wait for `calls.HOLD` characters of arguments, or for the end
    of the object: until then whatever is wrong makes it fail, later what is wrong goes out as
    arguments, as written, up to `closer`. Line ends and tabs in strings of the arguments come out
    as escapes; a string that reaches a line that begins with `closer` was never closed, which is
    wrong. Arguments may also be a string with the object in it.
    Unless `exact`, `parameters` does for `arguments`, none at all are `{}`, other keys are skipped.
    """

    def __init__(self, names: frozenset[str], *, exact: bool = False, closer: str = CLOSER) -> None:
        self.state = Reading.OPEN
        self.begun = False
        self._names = names
        self._exact = exact
        self._closer = closer
        self._closing_line = "\n" + closer.lstrip()
        self._name: str | None = None
        # What is known of the arguments and may not go out yet; whether they are complete.
        self._arguments: list[str] = []
        self._size = 0
        self._given = False
        self._complete = False
        self._out: list[Piece] = []
        self._step: Callable[[str, int], int] = self._opening
        self._json = JsonText()
        self._key = ""
        self._word = ""
        self._part: list[str] = []

    @property
    def named(self) -> bool:
        """Whether it names a tool."""
        return self._name is not None

    def feed(self, text: str, place: int) -> int:
        """See `calls.CallBody`."""
        while place < len(text) and self.state is Reading.OPEN:
            before, step = place, self._step
            place = step(text, place)
            if place == before and self._step == step:
                break
        return place

    def take(self) -> list[Piece]:
        """See `calls.CallBody`."""
        out, self._out = self._out, []
        return out

    def end(self, rest: str, cut: bool) -> None:
        """An object that lacks no more than its last brace is a call."""
        if rest:
            self._say(rest)
        if not self.begun and self._complete and self._name is not None:
            self._begin()
        self.state = Reading.DONE if self.begun else Reading.FAILED

    # Each of these reads at a place in one state and returns the next place.

    def _opening(self, text: str, place: int) -> int:
        place = _skip_blanks(text, place)
        if place == len(text):
            return place
        if text[place] != "{":
            return self._fail(place)
        self._step = self._first_key
        return place + 1

    def _first_key(self, text: str, place: int) -> int:
        place = _skip_blanks(text, place)
        if place < len(text) and text[place] == "}":
            return self._close(place)
        return self._begin_key(text, place)

    def _begin_key(self, text: str, place: int) -> int:
        place = _skip_blanks(text, place)
        if place == len(text):
            return place
        if text[place] != '"':
            return self._fail(place)
        self._step, self._json, self._word = self._read_key, JsonText(), ""
        return place

    def _read_key(self, text: str, place: int) -> int:
        end = self._collect(text, place)
        if self._json.complete:
            self._step = self._colon
            self._key = self._use(self._word)
            if not self._key:
                return self._fail(end)
        return end

    def _use(self, key: str) -> str:
        """Return what a key says: name, arguments, other, or "" for none that may be here."""
        word = orjson.loads(key)
        if word == "name" and self._name is None:
            return "name"
        if not self._given and (word == "arguments" or (word == "parameters" and not self._exact)):
            self._given = True
            return "arguments"
        return "" if self._exact else "other"

    def _colon(self, text: str, place: int) -> int:
        place = _skip_blanks(text, place)
        if place == len(text):
            return place
        if text[place] != ":":
            return self._fail(place)
        self._step = self._first_of_value
        return place + 1

    def _first_of_value(self, text: str, place: int) -> int:
        place = _skip_blanks(text, place)
        if place == len(text):
            return place
        self._json, self._word, self._part = JsonText(), "", []
        first = text[place]
        if self._key == "other":
            self._step = self._skip
        elif self._key == "name":
            self._step = self._read_name
            return self._fail(place) if first != '"' else place
        elif first == "{":
            self._step, self._json = self._read_arguments, JsonText(pauses=True)
        elif first == '"' or (first == "n" and not self._exact):
            self._step = self._read_wrapped
        else:
            return self._fail(place)
        return place

    def _skip(self, text: str, place: int) -> int:
        end = self._json.feed(text, place)
        return self._value_read(end)

    def _read_name(self, text: str, place: int) -> int:
        end = self._collect(text, place)
        if self._json.complete:
            name = orjson.loads(self._word)
            if name not in self._names:
                return self._fail(end)
            self._name = name
            self._let_out()
        return self._value_read(end)

    def _read_arguments(self, text: str, place: int) -> int:
        end = self._json.feed(text, place)
        self._say(text[place:end])
        if self._json.at_raw:
            return self._mend(text, end)
        self._complete = self._json.complete
        return self._value_read(end)

    def _mend(self, text: str, place: int) -> int:
        """Read a line end or a tab in a string as its escape, once it is known that no closing line
        begins there."""
        following = text[place : place + len(self._closing_line)]
        if following == self._closing_line:
            return self._fail(place)
        if self._closing_line.startswith(following):
            return place
        self._say(_ESCAPES[text[place]])
        return place + 1

    def _read_wrapped(self, text: str, place: int) -> int:
        """Read arguments that are a string with an object in it, or null."""
        end = self._json.feed(text, place)
        self._part.append(text[place:end])
        if self._json.complete:
            inner = orjson.loads("".join(self._part))
            inner = "{}" if inner is None or not inner.strip() else inner.strip()
            if not _is_object(inner):
                return self._fail(end)
            self._complete = True
            self._say(inner)
        return self._value_read(end)

    def _collect(self, text: str, place: int) -> int:
        """Read a key or a name, which have bounds."""
        end = self._json.feed(text, place)
        self._word += text[place:end]
        if self._json.broken or len(self._word) > _LONGEST_NAME:
            return self._fail(end)
        return end

    def _value_read(self, end: int) -> int:
        if self._json.broken:
            return self._fail(end)
        if self._json.complete and self.state is Reading.OPEN:
            self._step = self._behind
        return end

    def _behind(self, text: str, place: int) -> int:
        """Behind a value of the object."""
        place = _skip_blanks(text, place)
        if place == len(text):
            return place
        if text[place] == ",":
            self._step = self._begin_key
            return place + 1
        if text[place] == "}":
            return self._close(place)
        if text[place] == self._closer.lstrip()[0]:  # the object's last brace was forgotten
            self.end("", cut=False)
            return place
        return self._fail(place)

    def _close(self, place: int) -> int:
        if not self._given and not self._exact:
            self._complete = True
            self._say("{}")
        self.end("", cut=False)
        return place + 1

    def _spill(self, text: str, place: int) -> int:
        """Behind what is no JSON, in a call that has begun."""
        found = text.find(self._closer, place)
        end = _held_end(text, place, self._closer) if found < 0 else found
        self._say(text[place:end])
        if found >= 0:
            self.state = Reading.DONE
        return end

    def _say(self, text: str) -> None:
        if not text:
            return
        self._arguments.append(text)
        self._size += len(text)
        self._let_out()

    def _let_out(self) -> None:
        if self.begun or (self._size > HOLD and self._name is not None):
            self._begin()

    def _begin(self) -> None:
        """Let out what waits, behind the start."""
        if not self.begun and self._name is not None:
            self.begun = True
            self._out.append(CallStart(self._name))
        self._out += map(CallArguments, self._arguments)
        self._arguments = []

    def _fail(self, place: int) -> int:
        """Something is wrong at a place."""
        if not self.begun:
            self.state = Reading.FAILED
        elif self._complete:
            self.state = Reading.DONE
        else:
            self._step = self._spill
        return place


def _skip_blanks(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\n\r":
        place += 1
    return place


def _held_end(text: str, place: int, closer: str) -> int:
    """Return where the text from a place on ends that is no beginning of the closer."""
    for size in range(min(len(closer) - 1, len(text) - place), 0, -1):
        if text.endswith(closer[:size]):
            return len(text) - size
    return len(text)


def _is_object(text: str) -> bool:
    checker = JsonText()
    end = checker.feed(text)
    return text[0] == "{" and checker.complete and end == len(text)
