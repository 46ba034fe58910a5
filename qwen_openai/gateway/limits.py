"""What keys may take, and the whole server: requests and tokens a minute, at once, a day, a month.

A request reserves what it may cost at most before it runs, and settles on what it did cost, however
it ended. Single event loop, nothing here waits: a decision is never split by another request.
"""

from collections.abc import Mapping

from qwen_openai.gateway.keys import Key, KeyLimits


class Reservation:
    """What one request has taken; settle it in a `finally`, twice does no harm."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def headers(self) -> Mapping[str, str]:
        """OpenAI's `x-ratelimit-*`, of the limits that there are, as they stand now."""
        return {}

    def settle(self, tokens: int) -> None:
        """Give back what was reserved and not used; ``tokens`` is what was."""


class Limiter:
    """Counts for all keys. ``total`` bounds all of them together."""

    def __init__(self, total: KeyLimits) -> None:
        self._total = total

    def apply(self, total: KeyLimits) -> None:
        """Take other limits for the whole; what has been counted stays counted."""
        self._total = total

    def reserve(self, key: Key, tokens: int) -> Reservation:
        """Take one request of ``tokens`` tokens, all of it or nothing.

        Raises RateLimited for the key's own limit, QuotaExceeded for its budget of a day or month,
        Overloaded for the limits of the whole server.
        """
        return Reservation(tokens)
