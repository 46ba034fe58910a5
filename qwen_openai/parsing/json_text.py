"""One JSON value, checked strictly while it comes: RFC 8259, with escaped surrogates in pairs only,
since most readers take no others, and nested no deeper than 128.

Sans I/O. Keeps nothing of the value but where in it the text is: memory is bounded by the depth,
work is linear in the text.
"""

import re
from collections.abc import Callable

_DEEPEST = 128
_BLANK = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_RAW = frozenset("\n\r\t")
_HEX = frozenset("0123456789abcdefABCDEF")
_LITERALS = {"t": "rue", "f": "alse", "n": "ull"}
_CLOSERS = {"}": "{", "]": "["}

# The states of a number, and what leads from one to the next; "d" is any digit from 1 on.
_NUMBER = {
    "minus": {"0": "zero", "d": "whole"},
    "zero": {".": "dot", "e": "e"},
    "whole": {"0": "whole", "d": "whole", ".": "dot", "e": "e"},
    "dot": {"0": "fraction", "d": "fraction"},
    "fraction": {"0": "fraction", "d": "fraction", "e": "e"},
    "e": {"+": "sign", "-": "sign", "0": "exponent", "d": "exponent"},
    "sign": {"0": "exponent", "d": "exponent"},
    "exponent": {"0": "exponent", "d": "exponent"},
}
_KINDS = {**dict.fromkeys("123456789", "d"), **{char: char for char in "0.+-"}, "e": "e", "E": "e"}
_WHOLE_NUMBERS = frozenset({"zero", "whole", "fraction", "exponent"})


class JsonText:
    """Feed text; it is read up to the end of one value. A number ends before what follows it."""

    __slots__ = (
        *("_high", "_key", "_pauses", "_stack", "_step", "_token"),
        *("at_raw", "broken", "complete"),
    )

    def __init__(self, *, pauses: bool = False) -> None:
        """With `pauses` a line end or a tab within a string, which JSON knows only as an escape,
        breaks nothing unless the string is a key: reading stops before it, `at_raw`. Reading on
        behind it takes it for its escape."""
        self.complete = False
        self.broken = False
        self.at_raw = False
        self._pauses = pauses
        # The brackets that are open; whether the string being read is a key; what is left of a
        # literal, the state of a number or the digits of an escape; half a pair of surrogates.
        self._stack: list[str] = []
        self._key = False
        self._token = ""
        self._high = False
        self._step: Callable[[str, int], int] = self._value

    def feed(self, text: str, place: int = 0) -> int:
        """Read on from a place; return where it stopped: behind the value once `complete`, at the
        first character that cannot be once `broken`, at a pause, else the end of the text."""
        size, self.at_raw = len(text), False
        while place < size and not (self.complete or self.broken or self.at_raw):
            place = self._step(text, place)
        return place

    # Each of these reads at a place in one state and returns the next place.

    def _blanks(self, text: str, place: int) -> int:
        found = _BLANK.match(text, place)
        return place if found is None else found.end()

    def _break(self, place: int) -> int:
        self.broken = True
        return place

    def _value(self, text: str, place: int) -> int:
        place = self._blanks(text, place)
        return self._begin(text[place], place) if place < len(text) else place

    def _begin(self, char: str, place: int) -> int:
        if char == '"':
            self._key, self._step = False, self._string
        elif char in "{[":
            self._stack.append(char)
            self._step = self._first_key if char == "{" else self._first_item
            self.broken = len(self._stack) > _DEEPEST
        elif char in _LITERALS:
            self._token, self._step = _LITERALS[char], self._literal
        elif char == "-" or "0" <= char <= "9":
            self._token = {"-": "minus", "0": "zero"}.get(char, "whole")
            self._step = self._number
        else:
            return self._break(place)
        return place + 1

    def _first_item(self, text: str, place: int) -> int:
        place = self._blanks(text, place)
        if place < len(text) and text[place] == "]":
            return self._close(place)
        return self._begin(text[place], place) if place < len(text) else place

    def _first_key(self, text: str, place: int) -> int:
        place = self._blanks(text, place)
        if place < len(text) and text[place] == "}":
            return self._close(place)
        return self._name(text, place)

    def _name(self, text: str, place: int) -> int:
        place = self._blanks(text, place)
        if place == len(text):
            return place
        if text[place] != '"':
            return self._break(place)
        self._key, self._step = True, self._string
        return place + 1

    def _colon(self, text: str, place: int) -> int:
        place = self._blanks(text, place)
        if place == len(text):
            return place
        if text[place] != ":":
            return self._break(place)
        self._step = self._value
        return place + 1

    def _behind(self, text: str, place: int) -> int:
        """Behind a value in an object or a list."""
        place = self._blanks(text, place)
        if place == len(text):
            return place
        char = text[place]
        if char == ",":
            self._step = self._name if self._stack[-1] == "{" else self._value
            return place + 1
        if _CLOSERS.get(char) == self._stack[-1]:
            return self._close(place)
        return self._break(place)

    def _close(self, place: int) -> int:
        self._stack.pop()
        self._over()
        return place + 1

    def _over(self) -> None:
        """A value is complete."""
        self._step = self._behind
        self.complete = not self._stack

    def _literal(self, text: str, place: int) -> int:
        if text[place] != self._token[0]:
            return self._break(place)
        self._token = self._token[1:]
        if not self._token:
            self._over()
        return place + 1

    def _number(self, text: str, place: int) -> int:
        following = _NUMBER[self._token].get(_KINDS.get(text[place], ""))
        if following is not None:
            self._token = following
            return place + 1
        if self._token not in _WHOLE_NUMBERS:
            return self._break(place)
        self._over()
        return place

    def _string(self, text: str, place: int) -> int:
        found = None if self._high else _PLAIN.match(text, place)
        place = place if found is None else found.end()
        if place == len(text):
            return place
        char = text[place]
        if char == "\\":
            self._step = self._escape
        elif char != '"' or self._high:
            return self._pause(char, place)
        elif self._key:
            self._step = self._colon
        else:
            self._over()
        return place + 1

    def _pause(self, char: str, place: int) -> int:
        """At what no string may hold as it is."""
        self.at_raw = self._pauses and char in _RAW and not (self._key or self._high)
        self.broken = not self.at_raw
        return place

    def _escape(self, text: str, place: int) -> int:
        char = text[place]
        if char == "u":
            self._token, self._step = "", self._code
        elif char in '"\\/bfnrt' and not self._high:
            self._step = self._string
        else:
            return self._break(place)
        return place + 1

    def _code(self, text: str, place: int) -> int:
        if text[place] not in _HEX:
            return self._break(place)
        self._token += text[place]
        if len(self._token) < 4:
            return place + 1
        code = int(self._token, 16)
        if (0xDC00 <= code < 0xE000) != self._high:
            return self._break(place)
        self._high = 0xD800 <= code < 0xDC00
        self._step = self._string
        return place + 1
