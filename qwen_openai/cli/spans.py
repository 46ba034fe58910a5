"""Times as people write them on a command line: a span such as 30d, a day, a moment; and back."""

import math
import re
from datetime import UTC, datetime

import typer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)


def seconds_of(span: str) -> float:
    """Return the seconds of "90s", "10m", "12h", "30d" or "4w". Raises BadParameter, which names
    the form."""
    found = _SPAN.fullmatch(span.strip())
    if found is None:
        raise typer.BadParameter(f"{span!r} is no span of time: write 10m, 12h, 30d or 4w")
    return float(int(found[1]) * _UNITS[found[2]])


def moment_of(text: str, now: float) -> float:
    """Return the Unix time of a span from ``now`` on, of a day, which is its first moment, or of a
    moment in ISO 8601. UTC unless it says otherwise. Raises BadParameter for what is neither, or
    over already."""
    if _SPAN.fullmatch(text.strip()):
        moment = now + seconds_of(text)
    else:
        try:
            read = datetime.fromisoformat(text.strip())
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is no time: write 30d, 2031-01-31 or 2031-01-31T18:00+08:00"
            ) from None
        moment = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if not now < moment < datetime.max.replace(tzinfo=UTC).timestamp():
        raise typer.BadParameter(f"{text!r} is not a time to come")
    return moment


def iso(moment: float | None) -> str | None:
    """Return a Unix time for programs, in whole seconds of UTC."""
    return None if moment is None else f"{_utc(moment):%Y-%m-%dT%H:%M:%SZ}"


def shown(moment: float) -> str:
    """Return a Unix time for people, who read it to the minute."""
    return f"{_utc(moment):%Y-%m-%d %H:%M} UTC"


def _utc(moment: float) -> datetime:
    return datetime.fromtimestamp(math.floor(moment), UTC)
