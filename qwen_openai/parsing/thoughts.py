"""Thoughts split from the answer behind them: `<think>...</think>` at the very beginning, as Qwen3
and later write them.

Sans I/O. The line ends around thoughts and the blank lines behind them belong to no one. Only the
first block counts; one that is never closed is all thoughts.
"""

import re
from collections.abc import Callable

from qwen_openai.parsing.tagged import held_tag

_OPENER = "<think>"
_CLOSER = "</think>"
# So many blanks in a row are looked at; more are text.
_BLANKS = 64
_BLANK_LINES = re.compile(rf"(?:[^\S\n]{{0,{_BLANKS}}}\n)*")


class Thoughts:
    """Feed text; get back what of it is thought and what is answer."""

    __slots__ = ("_read", "answering", "held", "thinking")

    def __init__(self, *, inside: bool) -> None:
        """`inside` where the prompt ended in a thought: its tag may then come again."""
        # Whether a thought began, and whether the answer did. `held` is undecided text.
        self.thinking = inside
        self.answering = False
        self.held = ""
        self._read: Callable[[str], tuple[str, str]] = self._opening

    def feed(self, text: str) -> tuple[str, str]:
        """Return the thought and the answer that are certain now."""
        if self.answering:
            return "", text
        text, self.held = self.held + text, ""
        return self._read(text)

    def flush(self) -> tuple[str, str]:
        """Return what is held back: the answer is over."""
        held, self.held = self.held, ""
        if self._read == self._behind:
            return "", ""
        return (held, "") if self.thinking and held.strip() else ("", "" if self.thinking else held)

    def _opening(self, text: str) -> tuple[str, str]:
        """Look for the tag, behind blanks."""
        solid = text.lstrip()
        near = len(text) - len(solid) <= _BLANKS
        if near and len(solid) < len(_OPENER) and _OPENER.startswith(solid):
            self.held = text
            return "", ""
        if near and solid.startswith(_OPENER):
            self.thinking = True
            return self._first(solid[len(_OPENER) :])
        if self.thinking:
            return self._first(text)
        self.answering = True
        return "", text

    def _first(self, text: str) -> tuple[str, str]:
        """Drop line ends in front of the first thought."""
        self._read = self._first
        text = text.lstrip("\r\n")
        if not text:
            return "", ""
        self._read = self._inside
        return self._inside(text)

    def _inside(self, text: str) -> tuple[str, str]:
        end = text.find(_CLOSER)
        if end >= 0:
            self._read = self._behind
            _, answer = self._behind(text[end + len(_CLOSER) :])
            return text[: _trimmed(text, end)], answer
        end = _trimmed(text, held_tag(text, 0, (_CLOSER,)))
        self.held = text[end:]
        return text[:end], ""

    def _behind(self, text: str) -> tuple[str, str]:
        """Drop blank lines in front of the answer."""
        found = _BLANK_LINES.match(text)
        line = text if found is None else text[found.end() :]
        if len(line) <= _BLANKS and not line.strip():
            self.held = line
            return "", ""
        self.answering = True
        return "", line


def _trimmed(text: str, end: int) -> int:
    """Return where text up to `end` ends without the line ends there."""
    first = max(0, end - _BLANKS)
    while end > first and text[end - 1] in "\r\n":
        end -= 1
    return end
