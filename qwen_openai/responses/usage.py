"""The body of GET /v1/usage: what a key has used, and what it may still use. The shape is our own;
OpenAI's specification has nothing like it for the holder of a key.
"""

from collections.abc import Mapping, Sequence

Numbers = Mapping[str, str | int | float | None]


def usage_body(
    *,
    key: Mapping[str, str] | None,
    today: Numbers,
    month: Numbers,
    days: int,
    by_day: Sequence[Numbers],
    limits: Mapping[str, Mapping[str, int]],
) -> dict[str, object]:
    """Return the body. ``key`` is id and name, None for all keys together; ``by_day`` are the last
    ``days`` days, the present one last, for each model (and key); ``limits`` says of each limit
    that there is what it is and what is left."""
    return {
        "object": "usage",
        "key": key,
        "today": today,
        "month": month,
        "days": days,
        "by_day": by_day,
        "limits": limits,
    }
