"""Settings loaded again while the server runs: on SIGHUP, and when the config file changes.

Either everything that is new holds afterwards or nothing does; a log line says which, by the names
of settings alone. Used by `server`; knows no sockets.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from qwen_openai.errors import StartupError
from qwen_openai.settings import Settings, change, look_at
from qwen_openai.settings.changes import Look

# Seconds between two looks at the file, and those that it must stay as it is before it is read:
# an editor may have written half of it.
_EVERY = 1.0
_SETTLED = 0.2


@dataclass(frozen=True, slots=True)
class Reload:
    """A config file, and what reads it again, with flags and environment, and checks the result.
    ``load`` raises StartupError; it is called in a thread."""

    config: Path
    load: Callable[[], Settings]


class Gateway(Protocol):
    """What is told of changed settings."""

    settings: Settings

    async def apply(self, settings: Settings) -> None: ...


class Reloader:
    """Loads and applies, one time after the other."""

    def __init__(
        self,
        gateway: Gateway,
        reload: Reload | None,
        *,
        every: float = _EVERY,
        settled: float = _SETTLED,
        look: Callable[[Path], Look | None] = look_at,
    ) -> None:
        """Without a ``reload``, asking only logs that there is no file."""
        self._gateway = gateway
        self._reload = reload
        self._every = every
        self._settled = settled
        self._asked = asyncio.Event()
        # Taken here and not in `watch`: the file may change while the gateway starts.
        self._seen = look(reload.config) if reload else None
        self._look = look
        self._log = structlog.get_logger("qwen_openai.reload")

    def ask(self) -> None:
        """Load now, whether or not the file has changed."""
        self._asked.set()

    async def watch(self) -> None:
        """Load whenever asked to, and when the file has changed; until cancelled."""
        while True:
            asked = await self._wait()
            if self._reload is None:
                if asked:
                    self._log.warning("nothing to reload: the server was started without --config")
                continue
            seen = await self._settle(self._reload.config)
            # A file that is gone is about to be replaced; where it stays away, asking says so.
            if asked or (seen is not None and seen != self._seen):
                self._seen = seen
                await self._take(self._reload)

    async def _wait(self) -> bool:
        """Return after a while, or at once, with True, when asked."""
        every = None if self._reload is None else self._every
        try:
            await asyncio.wait_for(self._asked.wait(), every)
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def _settle(self, config: Path) -> Look | None:
        """Look at the file until two looks agree, for a few seconds at most."""
        seen = await asyncio.to_thread(self._look, config)
        for _ in range(20):
            if seen == self._seen:
                break
            await asyncio.sleep(self._settled)
            before, seen = seen, await asyncio.to_thread(self._look, config)
            if before == seen:
                break
        return seen

    async def _take(self, reload: Reload) -> None:
        try:
            new = await asyncio.to_thread(reload.load)
            made = change(self._gateway.settings, new)
            if made.taken:
                await self._gateway.apply(made.settings)
        except StartupError as error:
            self._log.error("settings not reloaded", reason=f"{error.message} {error.fix}")
            return
        except Exception as error:  # noqa: BLE001  # a bug in one reload must not end all later ones
            self._log.error("settings not reloaded", reason=type(error).__name__)
            return
        # Somebody waits for what has not come, so that is said on quiet servers too.
        told = self._log.warning if made.later else self._log.info
        told(
            "settings reloaded",
            config=str(reload.config),
            changed=list(made.taken),
            needs_restart=list(made.later),
        )


class Terminal:
    """Whether the terminal that the program was started from is still there."""

    def __init__(self) -> None:
        # Under nohup the signal is ignored from the start, and a closed terminal is no reason.
        ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._had_one = not ignored and _opens()

    def is_gone(self) -> bool:
        """Whether there was one that is closed by now."""
        return self._had_one and not _opens()


def _opens() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
