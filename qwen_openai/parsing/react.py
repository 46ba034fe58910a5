"""Calls in ReAct text as Qwen-1 writes it, read while it comes. Prose that quotes the format, calls
of unknown tools and broken arguments stay text, as written.

Sans I/O: text in, safe text and whole calls out; the result does not depend on how the text was
split, and work is linear in it. `adapter.react` writes the same format.
"""

import re
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Literal

import orjson

from qwen_openai.parsing.calls import CallArguments, CallStart, Piece, joined
from qwen_openai.parsing.labels import Label, Lines

# What the prompt was left open behind: nothing, "Thought:", "Final Answer:", or text of an answer.
Opening = Literal["reply", "thought", "answer", "text"]

# A line with an action's name has no room for more than the name and some blanks.
_LONGEST_NAME_LINE = 128


class _State(Enum):
    TEXT = auto()  # outside any step; goes out at once
    THOUGHT = auto()  # held: content before a call, dropped before a final answer
    NAME = auto()  # behind "Action:"
    NAMED = auto()  # behind its line: "Action Input:" must follow
    INPUT = auto()  # in the JSON object
    COMPLETE = auto()  # behind it: only a label or the end may follow
    ANSWER = auto()  # behind "Final Answer:"; goes out at once, and nothing in it is a step


class ReactCalls:
    """Feed text until `ended`; get back text and whole calls in order.

    A call counts only where a line begins with "Action:", outside blocks of code and before any
    final answer, with the name of a tool alone on the line, then "Action Input:" and one JSON
    object, then a label or the end of the reply. For the end to do, the reply must have used a
    label before or begun with the action. "Observation:" ends the answer: its results would be
    invented; so does, after a call, whatever is neither thought nor action.
    """

    def __init__(
        self, names: Iterable[str], *, parallel: bool = True, opening: Opening = "reply"
    ) -> None:
        """`names` are the tools that may be called. Without `parallel` the first call is the end.
        `opening` says where in the format the prompt ended."""
        self.calls = 0
        self.ended = False
        self._names = frozenset(names)
        self._parallel = parallel
        self._lines = Lines(at_start=opening == "reply")
        self._state = {
            "reply": _State.TEXT,
            "thought": _State.THOUGHT,
            "answer": _State.ANSWER,
            "text": _State.ANSWER,
        }[opening]
        self._labelled = opening != "reply"
        self._skip_blanks = opening in ("thought", "answer")
        self._out: list[Piece] = []
        self._wrote = False
        # What is undecided, as written; of it the thought, and the call so far.
        self._raw: list[str] = []
        self._thought: list[str] = []
        self._name = ""
        self._input = _JsonObject()
        self._certain = False
        self._read: dict[_State, Callable[[str], str]] = {
            _State.TEXT: self._read_text,
            _State.THOUGHT: self._read_thought,
            _State.NAME: self._read_name,
            _State.NAMED: self._read_blanks,
            _State.INPUT: self._read_input,
            _State.COMPLETE: self._read_blanks,
            _State.ANSWER: self._read_answer,
        }

    @property
    def inside(self) -> bool:
        """See `calls.CallParser`. A name counts as long as it may become a tool's."""
        if self._state is _State.NAME:
            name = self._name.strip()
            return any(each.startswith(name) for each in self._names)
        return self._state in (_State.NAMED, _State.INPUT)

    def feed(self, text: str) -> list[Piece]:
        """Take the next piece of text."""
        for piece in self._lines.feed(text):
            if self.ended:
                break
            if isinstance(piece, Label):
                self._on_label(piece)
            else:
                self._on_text(piece)
        return self._take()

    def flush(self, cut: bool) -> list[Piece]:
        """See `calls.CallParser`. A call is whole or text, wherever the reply was cut."""
        rest = "" if self.ended else self._lines.flush()
        if rest and self._state is _State.COMPLETE:
            self._confirm()  # the beginning of a label, cut
        elif rest and not (self.calls and self._state is _State.TEXT):
            self._on_text(rest)
        if self._state is _State.COMPLETE and self._certain:
            self._confirm()
        if not self.ended and not (self.calls and self._state is _State.TEXT):
            self._write("".join(self._raw))
        self._raw = []
        return self._take()

    def _take(self) -> list[Piece]:
        out, self._out = self._out, []
        return joined(out)

    def _write(self, text: str) -> None:
        if text:
            self._wrote = True
            self._out.append(text)

    def _write_paragraph(self, text: str) -> None:
        self._write(f"\n{text}" if self._wrote and text else text)

    def _on_text(self, text: str) -> None:
        while text:
            text = self._read[self._state](text)

    def _on_label(self, label: Label) -> None:
        """Go on to the next step, after deciding about the one that it ends."""
        state = self._state
        if state is _State.ANSWER:
            self._on_text(label.value)
        elif state is _State.NAMED and label is Label.INPUT:
            self._raw.append(label.value)
            self._state, self._input = _State.INPUT, _JsonObject()
        else:
            if state is _State.COMPLETE:
                self._confirm()
            elif state in (_State.NAMED, _State.INPUT):
                self._give_up()
            if not self.ended:
                self._begin(label)

    def _begin(self, label: Label) -> None:
        """Begin a step, outside any other than a thought."""
        thinking = self._state is _State.THOUGHT
        if label is Label.THOUGHT:
            self._raw.append(label.value)
            self._state, self._labelled = _State.THOUGHT, True
        elif label is Label.ACTION:
            self._raw.append(label.value)
            self._state, self._name = _State.NAME, ""
            self._certain = self._labelled or not self._wrote
        elif label is Label.OBSERVATION or (self.calls and label is not Label.INPUT):
            self._end(drop_thought=label is Label.ANSWER)
        elif label is not Label.ANSWER:
            self._on_text(label.value)
        elif thinking or self._labelled or not self._wrote:
            self._raw, self._thought = [], []
            self._state, self._skip_blanks = _State.ANSWER, True
        else:
            self._on_text(label.value)
            self._state = _State.ANSWER

    def _end(self, *, drop_thought: bool) -> None:
        if self._state is _State.THOUGHT and not drop_thought:
            self._write("".join(self._raw).rstrip())
        self._raw = []
        self.ended = True

    def _give_up(self) -> None:
        """What is held is no call and no thought before one: it is text, as written."""
        held = "".join(self._raw)
        self._raw, self._thought = [], []
        self._state = _State.TEXT
        self._on_text(held)

    def _confirm(self) -> None:
        self._write_paragraph("".join(self._thought).strip())
        self._out += (CallStart(self._name), CallArguments(self._input.text))
        self._raw, self._thought = ["\n"] if self._wrote else [], []
        self._state, self._labelled = _State.TEXT, True
        self.calls += 1
        self.ended = not self._parallel

    # Each of these reads text in one state and returns what is to be read in the next.

    def _read_text(self, text: str) -> str:
        """Blanks at the end are held: before a label they belong to no one."""
        solid = text.rstrip()
        if solid:
            self._write("".join(self._raw) + solid)
            self._raw = []
        if len(solid) < len(text):
            self._raw.append(text[len(solid) :])
        return ""

    def _read_thought(self, text: str) -> str:
        if self._skip_blanks:
            text = text.lstrip()
            self._skip_blanks = not text
        self._raw.append(text)
        self._thought.append(text)
        return ""

    def _read_answer(self, text: str) -> str:
        if self._skip_blanks:
            text = text.lstrip()
            self._skip_blanks = not text
            self._write_paragraph(text)
        else:
            self._write(text)
        return ""

    def _read_name(self, text: str) -> str:
        line, newline, rest = text.partition("\n")
        self._name += line
        if len(self._name) > _LONGEST_NAME_LINE:
            self._raw.append(line)
            self._give_up()
            return newline + rest
        self._raw += (line, newline)
        if newline:
            self._name = self._name.strip()
            if self._name in self._names:
                self._state = _State.NAMED
            else:
                self._give_up()
        return rest

    def _read_blanks(self, text: str) -> str:
        if not text.isspace():
            self._give_up()
            return text
        self._raw.append(text)
        return ""

    def _read_input(self, text: str) -> str:
        end = self._input.feed(text)
        self._raw.append(text[:end])
        if self._input.broken:
            self._give_up()
        elif self._input.complete:
            self._state = _State.COMPLETE
        return text[end:]


_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\\n]')


class _JsonObject:
    """Feed text; it is read up to the end of one JSON object, which is then checked."""

    __slots__ = ("_depth", "_escaped", "_in_string", "_pieces", "broken", "complete")

    def __init__(self) -> None:
        self.complete = False
        self.broken = False
        self._pieces: list[str] = []
        self._depth = 0
        self._in_string = False
        self._escaped = False

    @property
    def text(self) -> str:
        """The object as written."""
        return "".join(self._pieces)

    def feed(self, text: str) -> int:
        """Read on; return how much was read: less than all once `complete` or `broken`."""
        start = 0
        if not self._pieces:
            start = len(text) - len(text.lstrip())
            if start == len(text):
                return start
            self.broken = text[start] != "{"
        end = 0 if self.broken else self._end(text, start)
        self._pieces.append(text[start:end])
        if self._depth == 0 and not self.broken:
            self.complete = _is_object(self.text)
            self.broken = not self.complete
        return end

    def _end(self, text: str, place: int) -> int:
        """Return the place behind the object's last brace, or the end of the text without one."""
        while place < len(text):
            if self._escaped:
                self._escaped = False
                place += 1
                continue
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, place)
            if found is None:
                break
            place = found.end()
            if not self._step(found[0]):
                return place
        return len(text)

    def _step(self, char: str) -> bool:
        """Take one character that matters; return whether the object may go on."""
        if char == '"':
            self._in_string = not self._in_string
        elif char == "\\":
            self._escaped = True
        elif char == "\n":  # JSON has no line breaks in strings: a label may follow
            self.broken = True
        else:
            self._depth += 1 if char in "{[" else -1
        return not self.broken and self._depth > 0


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
