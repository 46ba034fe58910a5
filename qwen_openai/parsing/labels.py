"""ReAct's labels in generated text: where a line begins with one, outside blocks of code.

Sans I/O. Knows lines, labels and fences, not what a sequence of labels means (`parsing.react`).
Nothing is held back but the beginning of a line that may still become a label.
"""

import re
from enum import Enum


class Label(Enum):
    """A step of the format; the value is how its line begins."""

    THOUGHT = "Thought:"
    ACTION = "Action:"
    INPUT = "Action Input:"
    OBSERVATION = "Observation:"
    ANSWER = "Final Answer:"
    QUESTION = "Question:"


_LONGEST = max(len(label.value) for label in Label)
_INITIALS = frozenset(label.value[0] for label in Label)

# A fence of a block of code, as Markdown has it; a longer line is none.
_FENCE = re.compile(r" {0,3}(`{3,})([^`]*)")
_LONGEST_FENCE = 80


class Lines:
    """Feed text; get back its pieces in order: labels as `Label`, all else as it was."""

    __slots__ = ("_at_start", "_fence", "_head", "_held")

    def __init__(self, *, at_start: bool = True) -> None:
        """Without `at_start` the text goes on in the middle of a line."""
        self._at_start = at_start
        self._held = ""
        # How the line so far begins, and how many backticks opened the block it is in, 0 for none.
        self._head = ""
        self._fence = 0

    def feed(self, text: str) -> list[str | Label]:
        """Take the next piece of text."""
        text, self._held = self._held + text, ""
        pieces: list[str | Label] = []
        place = shown = 0
        while place < len(text):
            label = self._label_at(text, place)
            if label is None:
                if self._held:
                    text = text[:place]
                    break
                place = self._read_line(text, place)
                continue
            if shown < place:
                pieces.append(text[shown:place])
            pieces.append(label)
            place = shown = place + len(label.value)
            self._at_start, self._head = False, label.value
        if shown < len(text):
            pieces.append(text[shown:])
        return pieces

    def flush(self) -> str:
        """Return what is held back: the text is over, so it becomes no label."""
        held, self._held = self._held, ""
        return held

    def _label_at(self, text: str, place: int) -> Label | None:
        """Return the label that begins here. What may become one when more comes is held."""
        if not self._at_start or self._fence or text[place] not in _INITIALS:
            return None
        beginning = text[place : place + _LONGEST]
        for label in Label:
            if beginning.startswith(label.value):
                return label
            if label.value.startswith(beginning):
                self._held = beginning
        return None

    def _read_line(self, text: str, place: int) -> int:
        """Read to the end of the line or of the text; return the place behind it."""
        end = text.find("\n", place)
        last = len(text) if end < 0 else end
        if len(self._head) <= _LONGEST_FENCE:
            self._head += text[place : min(last, place + _LONGEST_FENCE + 1)]
        if end < 0:
            self._at_start = False
            return last
        self._close_line()
        return end + 1

    def _close_line(self) -> None:
        head, self._head = self._head, ""
        self._at_start = True
        if "```" not in head or len(head) > _LONGEST_FENCE:
            return
        fence = _FENCE.fullmatch(head)
        if fence is None:
            return
        if not self._fence:
            self._fence = len(fence[1])
        elif len(fence[1]) >= self._fence and not fence[2].strip():
            self._fence = 0
