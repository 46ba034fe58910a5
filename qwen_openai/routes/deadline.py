"""Until when a caller waits, as the request says it."""

from starlette.types import Scope


def deadline_of(scope: Scope) -> float | None:
    """Return when the caller will have left, by time.monotonic(); None where nothing says so."""
    return None
