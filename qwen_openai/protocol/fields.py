"""The names a caller used: which are checked further, which are only reported, which are refused.

Knows the support matrix; values are judged only for being harmless. Sits between the parsed body
and the strict models.
"""

import re
from collections.abc import Iterable

from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.protocol.parameters import PARAMETERS

MOST_REPORTED = 16

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def refuse_unsupported(names: Iterable[str], body: dict[str, object]) -> list[str]:
    """Return which of `names`, members of a chat body that are not read, are to be reported as
    ignored.

    Raises UnsupportedParameter for a refused one with a value that asks for something, and
    InvalidRequest for one that no caller may set.
    """
    ignored = []
    for name in names:
        if body[name] is None:
            continue
        row = PARAMETERS.get(name)
        if row is None or row.use in ("ignored", "honoured"):
            ignored.append(name)
        elif row.use == "forbidden":
            raise forbidden(name)
        elif row.use == "refused" and not row.is_harmless(body[name]):
            raise UnsupportedParameter(
                f"The parameter {name!r} is not supported by this version; leave it out.",
                param=name,
            )
    return ignored


def refuse_forbidden(names: Iterable[str], body: dict[str, object]) -> list[str]:
    """Return which of `names`, members of any other body, are to be reported as ignored: all that
    are not null. Raises InvalidRequest for one that no caller may set."""
    given = [name for name in names if body[name] is not None]
    for name in given:
        row = PARAMETERS.get(name)
        if row is not None and row.use == "forbidden":
            raise forbidden(name)
    return given


def forbidden(name: str) -> InvalidRequest:
    """Return the error for a member that no caller may set."""
    return InvalidRequest(
        f"The parameter {name!r} may not be set in a request; it is the operator's to decide.",
        param=name,
        code="forbidden_parameter",
    )


def header_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names fit for a response header: each 1 to 64 of [A-Za-z0-9_.-], no duplicates, at
    most 16; where there were more, the last is "..."."""
    safe: dict[str, None] = {}
    for name in names:
        safe[_UNSAFE.sub("_", name[:64]) or "_"] = None
        if len(safe) > MOST_REPORTED:
            return (*list(safe)[: MOST_REPORTED - 1], "...")
    return tuple(safe)
