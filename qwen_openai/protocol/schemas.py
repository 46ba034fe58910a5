"""Bounds on the JSON Schemas of a body: how deep they nest, how long they are.

A schema is the caller's own text, so it is never walked deeper, or kept longer, than stands here.
What it means, and whether an answer can be held to it, is `grammars`'s to say.
"""

from collections.abc import Sequence

import orjson

from qwen_openai.errors import InvalidRequest

MAX_DEPTH = 64
MAX_BYTES = 256 * 1024


def schema_size(schema: object, place: str) -> int:
    """Return the bytes of a schema's JSON text. Raises InvalidRequest naming `place` for one that
    is nested too deeply."""
    if _too_deep(schema):
        raise InvalidRequest(
            f"{place} holds more than {MAX_DEPTH} objects and lists in one another.", param=place
        )
    return len(orjson.dumps(schema))


def check_schema(schema: object, place: str) -> None:
    """Raise InvalidRequest naming `place` for a schema beyond the bounds."""
    check_size(schema_size(schema, place), place)


def check_size(size: int, place: str) -> None:
    """Raise InvalidRequest naming `place` for more bytes than a schema may have."""
    if size > MAX_BYTES:
        raise InvalidRequest(f"{place} is longer than {MAX_BYTES} bytes.", param=place)


def _too_deep(value: object) -> bool:
    """Level by level, since the depth is the caller's and Python's own stack is not endless."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else _items(outer))
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()
