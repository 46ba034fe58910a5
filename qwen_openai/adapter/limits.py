"""What the operator allows a request to ask for. Knows no request and no settings file."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest `n` and the most messages of one request."""

    max_n: int = 8
    max_messages: int = 2048
