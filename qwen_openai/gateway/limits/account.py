"""What one key, or all of them together, has taken, and what its limits say of the next request."""

from dataclasses import dataclass
from typing import Literal

from qwen_openai.gateway.keys import KeyLimits
from qwen_openai.gateway.limits.calendar import Calendar, Spent
from qwen_openai.gateway.limits.minute import Cell, Minute

_BIG = 120.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not taken. ``lasting``: it is larger than the limit; ``budget``: a day or a
    month is over; ``passing``: ``seconds`` from now there will be room for it."""

    kind: Literal["lasting", "budget", "passing"]
    seconds: float
    message: str


class Hold:
    """What one request has taken of an account, at its places there."""

    __slots__ = ("_account", "_cell", "_day", "_month")

    def __init__(self, account: "Account", cell: Cell) -> None:
        self._account = account
        self._cell = cell
        self._day = account.day
        self._month = account.month

    def settle(self, now: float, difference: int) -> None:
        """The request is over, and took so many tokens more than it held, or fewer. A day that is
        over keeps its own account: nothing of it is given back to the next."""
        account = self._account
        account.running -= 1
        if difference:
            account.minute.correct(self._cell, now, difference)
            self._day.tokens += difference
            self._month.tokens += difference


class Account:
    """Counts of one owner. ``touched`` is when it was last looked at."""

    __slots__ = ("day", "minute", "month", "running", "touched")

    def __init__(self, calendar: Calendar) -> None:
        self.minute = Minute()
        self.running = 0
        self.day = Spent(calendar.day)
        self.month = Spent(calendar.month)
        self.touched = 0.0

    def turn(self, now: float, calendar: Calendar) -> None:
        """Leave behind what no longer counts."""
        self.touched = now
        self.minute.expire(now)
        if self.day.period != calendar.day:
            self.day = Spent(calendar.day)
            if self.month.period != calendar.month:
                self.month = Spent(calendar.month)

    def take(self, now: float, tokens: int) -> Hold:
        """Take one request of so many tokens."""
        self.running += 1
        self.day.tokens += tokens
        self.month.tokens += tokens
        return Hold(self, self.minute.add(now, tokens))

    def spend(self, today: int, month: int) -> None:
        """Count what was taken before this process was."""
        self.day.tokens += today
        self.month.tokens += month

    def refuses_budget(self, limits: KeyLimits, tokens: int, day_left: float) -> Refusal | None:
        """What the budgets say; ``day_left`` is how long the day lasts yet."""
        budgets = (
            (limits.tokens_per_month, self.month, "month", _BIG),
            (limits.tokens_per_day, self.day, "day", day_left),
        )
        for limit, spent, name, seconds in budgets:
            if limit is None or spent.tokens + tokens <= limit:
                continue
            left = max(limit - spent.tokens, 0)
            return Refusal(
                "budget",
                seconds,
                f"{left} of {limit} tokens are left of the budget of this {name} (UTC), and this "
                f"request may take up to {tokens}, prompt and max_tokens together. "
                f"Ask for fewer with max_tokens, or wait for the next {name}.",
            )
        return None

    def refuses(self, limits: KeyLimits, tokens: int, now: float, usual: float) -> Refusal | None:
        """What the limits of the minute and of requests at once say; ``usual`` is how long a
        request usually runs."""
        found: list[Refusal] = []
        most = limits.tokens_per_minute
        if most is not None and tokens and self.minute.tokens + tokens > most:
            if tokens > most:
                return Refusal("lasting", _BIG, _too_large(tokens, most))
            wait = self.minute.seconds_until_tokens(now, tokens, most)
            found.append(
                _passing(wait, f"{most} tokens per minute", f"{tokens} more are asked for")
            )
        most = limits.requests_per_minute
        if most is not None and self.minute.requests >= most:
            wait = self.minute.seconds_until_request(now, most)
            found.append(_passing(wait, f"{most} requests per minute", "so many have come"))
        most = limits.parallel_requests
        if most is not None and self.running >= most:
            found.append(
                _passing(
                    usual / max(self.running, 1), f"{most} requests at once", "so many are running"
                )
            )
        return max(found, key=lambda each: each.seconds) if found else None


def _passing(seconds: float, limit: str, why: str) -> Refusal:
    return Refusal(
        "passing",
        seconds,
        f"The limit of {limit} is reached: {why}. "
        "Send the request again after the time in the Retry-After header.",
    )


def _too_large(tokens: int, most: int) -> str:
    return (
        f"This request may take up to {tokens} tokens, prompt and max_tokens together, and no more "
        f"than {most} are allowed in a minute. Ask for fewer with max_tokens or shorten the prompt."
    )
