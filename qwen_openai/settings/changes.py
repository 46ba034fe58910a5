"""What of changed settings a running server takes, and how a changed config file is noticed.

Most settings are built into what has been started; those that are asked anew at each use, and those
that `Gateway.apply` hands on, are listed here. Knows no server.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from qwen_openai.settings.fields import GROUPS, Settings

# Everything else waits for the next start.
TAKEN_LIVE = frozenset(
    {
        *dict(GROUPS)["Upstreams"],
        "requests_per_minute",
        "tokens_per_minute",
        "parallel_requests",
        "always_stream_usage",
        "reasoning_field",
        "strict_parameters",
        "limit_connections",
    }
)


@dataclass(frozen=True, slots=True)
class Change:
    """``settings`` are what holds from now on; ``taken`` names what is new in them, and ``later``
    what has changed too but needs a restart. Names only: a value may be a secret."""

    settings: Settings
    taken: tuple[str, ...]
    later: tuple[str, ...]


def change(old: Settings, new: Settings) -> Change:
    """Return what a server that runs with ``old`` makes of ``new``."""
    changed = [name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)]
    taken = tuple(name for name in changed if name in TAKEN_LIVE)
    later = tuple(name for name in changed if name not in TAKEN_LIVE)
    settings = old.model_copy(update={name: getattr(new, name) for name in taken})
    return Change(settings, taken, later)


Look = tuple[int, int, int]
"""When a file was written, how long it is, and which file stands there: editors put a new one in
place of the old one."""


def look_at(path: Path) -> Look | None:
    """Look at a file, or return None while there is none: in the middle of being replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
