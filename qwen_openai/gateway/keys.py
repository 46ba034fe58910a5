"""Who may come in: keys as the gateway holds them in memory, and the ring that finds them.

Nothing here touches the disk: `bookkeeper` fills the ring from the store, within a second of any
change, so that looking a key up costs a hash and a dictionary. Knows no HTTP.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

PREFIX = "sk-qwen-"
_SHOWN = len(PREFIX) + 4


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may take; None is no limit. Tokens are those of prompts and answers together;
    days and months are UTC's."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    parallel_requests: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret. ``id`` is what logs, the ledger and other tables call it;
    ``models`` are those that it may use, none means all; times are Unix seconds."""

    id: str
    name: str
    models: tuple[str, ...] = ()
    limits: KeyLimits = KeyLimits()
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None
    shown: str = ""
    is_master: bool = False

    def is_good(self, now: float) -> bool:
        """Whether it opens the door at this Unix time."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def may_use(self, model: str) -> bool:
        """Whether it is for this model, by the name that clients use."""
        return not self.models or model in self.models


@dataclass(frozen=True, slots=True)
class KeyCount:
    """Keys that open the door now, and keys that were ever made: from the first on they are asked
    for. The master key is none of them."""

    good: int = 0
    made: int = 0


NO_KEYS = KeyCount()
# Whoever comes where no key is asked for.
ANYBODY = Key(id="", name="anybody")
MASTER = Key(id="master", name="master key", is_master=True)


def new_secret() -> str:
    """Return a fresh key: 256 random bits behind a prefix that scanners for leaks can find."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: bytes) -> bytes:
    """Return what is stored of a key. A plain hash: the key is random, so there is nothing to guess
    that a slow one would protect."""
    return hashlib.sha256(secret).digest()


def shown_part(secret: str) -> str:
    """Return the beginning of a key that tells its owner which one it is."""
    return secret[:_SHOWN] + "..."


class KeyRing:
    """All keys that there are. One thread may `replace` them while another one asks."""

    def __init__(
        self,
        master: str | None = None,
        *,
        always: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``master`` is the operator's own key, which no store holds. With ``always`` a key is
        asked for even while there is none: nobody comes in."""
        self._master = None if master is None else digest_of(master.encode())
        self._keys: dict[bytes, Key] = {}
        self._asks = always or master is not None
        self._clock = clock

    @property
    def asks(self) -> bool:
        """Whether a key is asked for: from the first one on that was ever made, even where all
        have been revoked since, or their file is gone."""
        return self._asks

    def replace(self, keys: Iterable[tuple[bytes, Key]]) -> None:
        """Take these keys, by their digests, in place of those that were."""
        taken = dict(keys)
        self._keys = taken
        # After them, so that nobody is asked for a key that is not there yet.
        self._asks = self._asks or bool(taken)

    def find(self, secret: bytes) -> Key | None:
        """Return the key that opens the door now; None for one that is unknown, revoked or over.

        How long it takes tells nothing of a key. The master key, which a person may have chosen, is
        compared in constant time. The others are looked up by their digests: what a lookup could
        tell of a digest is of no use without the 256 random bits that it was made of.
        """
        digest = digest_of(secret)
        if self._master is not None and hmac.compare_digest(digest, self._master):
            return MASTER
        key = self._keys.get(digest)
        return key if key is not None and key.is_good(self._clock()) else None

    def count(self) -> KeyCount:
        """Count them; a key that was rotated is one, however many of its secrets still work."""
        now, keys = self._clock(), list(self._keys.values())
        good = {key.id for key in keys if key.is_good(now)}
        return KeyCount(len(good), len({key.id for key in keys}))
