"""What is known of a request beside its body, and what we tell beside ours.

It travels in the ASGI scope: the record of the request, the caller's key, headers for the response.
"""

from collections.abc import Callable, Mapping, Sequence

from starlette.types import Scope

from qwen_openai.gateway.keys import ANYBODY, Key
from qwen_openai.observe.record import Record

IGNORED_HEADER = "x-qwen-openai-ignored"
CHANGED_HEADER = "x-qwen-openai-changed"

_RECORD = "qwen_openai.record"
_KEY = "qwen_openai.key"
_HEADERS = "qwen_openai.headers"

Told = Callable[[], Mapping[str, str]]
"""Headers, asked for when the response begins."""


def note_headers(changes: Sequence[str], ignored: Sequence[str]) -> dict[str, str]:
    """Response headers: phrases of what was altered, names of what was ignored."""
    headers: dict[str, str] = {}
    if ignored:
        headers[IGNORED_HEADER] = ", ".join(ignored)
    if changes:
        headers[CHANGED_HEADER] = "; ".join(changes)
    return headers


def record_of(scope: Scope) -> Record:
    """Return the request's record, which `Envelope` has begun."""
    record: Record | None = scope.get(_RECORD)
    if record is None:
        record = scope[_RECORD] = Record(method=scope["method"])
    return record


def note_key(scope: Scope, key: Key) -> None:
    """Say whose request this is."""
    scope[_KEY] = key
    record_of(scope).key = key.id


def key_of(scope: Scope) -> Key:
    """Return the caller's key."""
    key: Key = scope.get(_KEY, ANYBODY)
    return key


def add_headers(scope: Scope, told: Told) -> None:
    """Have these headers on the response, whatever it will be."""
    scope.setdefault(_HEADERS, []).append(told)


def added_headers(scope: Scope) -> dict[str, str]:
    """Return all headers that were added so far."""
    return {name: value for told in scope.get(_HEADERS, ()) for name, value in told().items()}
