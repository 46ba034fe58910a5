"""Records as the middleware hands them to the ledger, and keys as the command makes them."""

import itertools
import time
from pathlib import Path

from qwen_openai.core import Usage
from qwen_openai.gateway.keys import KeyLimits
from qwen_openai.gateway.store import database, keys
from qwen_openai.observe.record import Outcome, Record

_numbers = itertools.count()


def record(
    *,
    key: str = "key_anna",
    model: str = "qwen",
    tokens: tuple[int, int, int] = (10, 5, 0),
    at: float | None = None,
    outcome: Outcome = "ok",
    seconds: float = 0.5,
    first_token: float | None = 0.1,
    reserved: int = 100,
) -> Record:
    """One finished request; ``tokens`` are prompt, completion and cached."""
    made = Record(
        request_id=f"req_{next(_numbers)}",
        method="POST",
        route="/v1/chat/completions",
        key=key,
        model=model,
        status=200,
        outcome=outcome,
        first_token=first_token,
        duration=seconds,
        usage=Usage(*tokens),
        reserved_tokens=reserved,
    )
    if at is not None:
        made.at = at
    return made


def make_key(path: Path, name: str = "anna", limits: KeyLimits | None = None) -> tuple[str, str]:
    """Make a key and return its secret and its id."""
    with database.opened(path) as connection:
        secret, key = keys.insert(connection, name, limits=limits or KeyLimits(), now=time.time())
    return secret, key.id
