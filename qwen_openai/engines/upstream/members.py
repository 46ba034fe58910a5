"""Members of an answer that nobody here knows, and which are kept for the caller. Pure."""

from collections.abc import Mapping

import orjson

# Ours go around them, and an encoder has its own idea of what is too deep.
_AROUND = 16


def collect(into: dict[str, object], came: Mapping[str, object], known: frozenset[str]) -> None:
    """Keep the members that are not ``known``, but null. Raises TypeError as `sendable`."""
    for name in came.keys() - known:
        value = came[name]
        if value is not None:
            into[name] = sendable(value)


def sendable(value: object) -> object:
    """Return a value that can be sent on. Raises TypeError for one that JSON can hold and we cannot
    write: too deep, or a number of more than 64 bits."""
    if type(value) is str or type(value) is float or type(value) is bool:
        return value
    around = value
    for _ in range(_AROUND):
        around = (around,)
    orjson.dumps(around)
    return value
