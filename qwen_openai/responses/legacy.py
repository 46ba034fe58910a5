"""The answer of POST /, in exactly the tutorial's shape. Knows no HTTP."""

from datetime import datetime


def legacy_body(
    text: str, request_history: list[tuple[str, str]], prompt: str, now: datetime
) -> dict[str, object]:
    """Return the answer, the history with the new pair (also pairs that did not fit the context:
    the caller keeps its own), and the local time of `now`."""
    return {
        "response": text,
        "history": [[query, answer] for query, answer in (*request_history, (prompt, text))],
        "status": 200,
        "time": now.strftime("%Y-%m-%d %H:%M:%S"),
    }
