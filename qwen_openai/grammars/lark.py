"""Pieces of Lark text as llguidance reads it, with whatever a caller wrote made inert.

Pure text. Knows how strings, regular expressions and nested grammars are written, not what any of
them is for. Source of the syntax: llguidance's docs/syntax.md and what its release 1.9 accepts.
"""

import json
import re
from collections.abc import Iterable

# Anything at all; `.` alone would stop at the end of a line.
ANYTHING = "/(?s:.*)/"

OF_FUNCTION = "// function "

_ESCAPED = re.compile("[\x7f]")
# What may hide a brace from whoever counts braces: strings, regular expressions, comments.
_TOKENS = re.compile(
    r'(?P<quoted>"(?:\\.|[^"\\\n])*"|//[^\n]*|\#[^\n]*|/(?:\\.|[^/\\])+/)|(?P<brace>[{}])'
)


def literal(text: str) -> str:
    """Return the terminal that matches exactly `text`."""
    quoted = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub("\\\\u007f", quoted)


def one_of(texts: Iterable[str]) -> str:
    """Return the expression that matches any of `texts` (at least one)."""
    return " | ".join(literal(text) for text in texts)


def pattern(text: str) -> str:
    """Return the terminal that matches what the regular expression `text` does, from end to end.

    A slash would end it and a line break could hide the rest from a reader: both are escaped. A
    lone backslash at its end would escape our own slash: such a text is no expression at all.
    """
    if not text:
        return '""'
    pieces: list[str] = []
    escaped = False
    for char in text:
        if char == "\n":
            pieces.append("n" if escaped else "\\n")
        elif char == "/" and not escaped:
            pieces.append("\\/")
        else:
            pieces.append(char)
        escaped = char == "\\" and not escaped
    return f"/{''.join(pieces)}/"


def exact(text: str) -> str:
    """Return `text` with everything escaped that means something in a regular expression."""
    return re.sub(r"([^A-Za-z0-9_\s<>=\"'])", r"\\\1", text).replace("\n", "\\n")


def nested(rules: str, root: str = "start") -> str:
    """Return `rules` as one expression of another grammar: their names are their own."""
    start = "" if root == "start" else f"start: {root}\n"
    return f"%lark {{\n{start}{rules}\n}}"


def is_balanced(rules: str) -> bool:
    """Whether every brace of a grammar has its partner, so that it can be nested."""
    depth = 0
    for token in _TOKENS.finditer(rules):
        if brace := token["brace"]:
            depth += 1 if brace == "{" else -1
            if depth < 0:
                return False
    return depth == 0


def json_text(value: object) -> str:
    """Return `value` as JSON the way models write it."""
    return json.dumps(value, ensure_ascii=False)


def of_function(name: str) -> str:
    """Return a comment that says whose schema stands in the next line, for error messages."""
    return f"{OF_FUNCTION}{json_text(name)}"
