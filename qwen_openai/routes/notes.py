"""What we tell beside the body: which parameters had no effect, and what we altered."""

from collections.abc import Sequence

from starlette.types import Scope

from qwen_openai.core import Usage

IGNORED_HEADER = "x-qwen-openai-ignored"
CHANGED_HEADER = "x-qwen-openai-changed"


def note_headers(changes: Sequence[str], ignored: Sequence[str]) -> dict[str, str]:
    """Response headers: phrases of what was altered, names of what was ignored."""
    headers: dict[str, str] = {}
    if ignored:
        headers[IGNORED_HEADER] = ", ".join(ignored)
    if changes:
        headers[CHANGED_HEADER] = "; ".join(changes)
    return headers


def note_usage(scope: Scope, usage: Usage) -> None:
    """Leave the token counts for the request's log line."""
    scope["qwen_openai.usage"] = usage
