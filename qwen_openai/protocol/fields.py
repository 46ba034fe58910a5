"""The names a caller used: which are checked further, which are only reported, which are refused.

Knows the support matrix; values are judged only for being harmless. Sits between the parsed body
and the strict models.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.protocol.parameters import PARAMETERS, Parameter

MOST_REPORTED = 16

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def refuse_unsupported(
    names: Iterable[str],
    body: dict[str, object],
    parameters: Mapping[str, Parameter] = PARAMETERS,
) -> list[str]:
    """Return which of `names`, members of a body that are not read, are to be reported as ignored:
    those with a value that asks for something. `parameters` is the support matrix of the route.

    Raises UnsupportedParameter for a refused one with such a value, and InvalidRequest for one that
    no caller may set.
    """
    ignored = []
    for name in names:
        row = parameters.get(name)
        if body[name] is None or (row is not None and row.is_harmless(body[name])):
            continue
        if row is None or row.use in ("ignored", "honoured"):
            ignored.append(name)
        elif row.use == "forbidden":
            raise forbidden(name)
        else:
            way = f"send {row.instead} instead" if row.instead else "leave it out"
            raise UnsupportedParameter(
                f"The parameter {name!r} is not supported; {way}.", param=name
            )
    return ignored


def refuse_ignored(ignored: Sequence[str]) -> None:
    """Refuse, for a caller who asks for strictness, a request of which something has no effect.

    Raises UnsupportedParameter naming the first.
    """
    if not ignored:
        return
    name = ignored[0]
    known = [row.name for row in PARAMETERS.values() if row.use == "honoured"]
    is_odd = name not in PARAMETERS and "." not in name  # not a member of a known one
    near = difflib.get_close_matches(name, known, n=1) if is_odd else []
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise UnsupportedParameter(
        f"The parameter {name!r} has no effect here, and strict checking is on; leave it "
        f"out.{guess}",
        param=name,
    )


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


def safe_name(name: str) -> str:
    """Return a name of the caller's own making fit for `param` or a header: 1 to 64 of
    [A-Za-z0-9_.-]."""
    return _UNSAFE.sub("_", name[:64]) or "_"


def header_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names fit for a response header: each 1 to 64 of [A-Za-z0-9_.-], no duplicates, at
    most 16; where there were more, the last is "..."."""
    safe: dict[str, None] = {}
    for name in names:
        safe[safe_name(name)] = None
        if len(safe) > MOST_REPORTED:
            return (*list(safe)[: MOST_REPORTED - 1], "...")
    return tuple(safe)
