"""The rows of keys: made, found, revoked, rotated, and loaded for the ring.

Knows SQL and no secrets: what it stores of one is a digest and the few characters that are shown.
Every value is a bound parameter. The functions that write raise StartupError for what an operator
can mend, since commands are who calls them.
"""

import json
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, fields

from qwen_openai.errors import StartupError
from qwen_openai.gateway.keys import (
    MASTER,
    PREFIX,
    Key,
    KeyLimits,
    digest_of,
    new_secret,
    shown_part,
)
from qwen_openai.gateway.store.database import transaction

ID_PREFIX = "key_"
LONGEST_NAME = 64
# Names of models are longer: paths and tags.
_LONGEST_MODEL = 256

_COLUMNS = "id, name, models, limits, created, expires, revoked, shown"
_LIMITS = frozenset(field.name for field in fields(KeyLimits))


def insert(
    connection: sqlite3.Connection,
    name: str,
    *,
    models: Sequence[str] = (),
    limits: KeyLimits = KeyLimits(),  # noqa: B008  # frozen
    expires: float | None = None,
    now: float,
) -> tuple[str, Key]:
    """Make a key and return its secret, which is kept nowhere, and the key.

    ``now`` and ``expires`` are Unix seconds. Raises StartupError where the name, or one of a model,
    is none, or the name is that of a key which has not been revoked.
    """
    _check_name(name)
    _check_models(models)
    secret = new_secret()
    key = Key(
        id=ID_PREFIX + secrets.token_hex(8),
        name=name,
        models=tuple(models),
        limits=limits,
        created=now,
        expires=expires,
        shown=shown_part(secret),
    )
    with transaction(connection):
        other = _named(connection, name)
        if other is not None and other.revoked is None:
            raise StartupError(
                f"There is a key called {name!r} already, {other.id}.",
                fix="Choose another name, or give it a new secret: "
                f"`qwen-openai keys rotate {other.id}`.",
            )
        connection.execute(
            f"INSERT INTO keys (digest, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (
                digest_of(secret.encode()),
                key.id,
                name,
                json.dumps(key.models, ensure_ascii=False),
                _limits_text(limits),
                now,
                expires,
                None,
                key.shown,
            ),
        )
    return secret, key


def list_keys(connection: sqlite3.Connection) -> list[Key]:
    """Return all keys that there ever were, oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created, id")  # noqa: S608
    return [_key(row) for row in rows]


def find(connection: sqlite3.Connection, wanted: str) -> Key | None:
    """Return the key with this id or name; of several with one name the one that is not revoked, or
    was made last."""
    query = f"SELECT {_COLUMNS} FROM keys WHERE id = ?"  # noqa: S608
    row = connection.execute(query, (wanted,)).fetchone()
    return _named(connection, wanted) if row is None else _key(row)


def revoke(connection: sqlite3.Connection, id: str, *, now: float) -> bool:
    """Have a key open nothing any more; False where it was revoked before."""
    with transaction(connection):
        done = connection.execute(
            "UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (now, id)
        )
        connection.execute("DELETE FROM retired WHERE key = ?", (id,))
        return done.rowcount == 1


def rotate(
    connection: sqlite3.Connection, id: str, *, now: float, grace: float = 0.0
) -> tuple[str, Key]:
    """Give a key a new secret and return that with the key. The one before works for ``grace``
    seconds more; without any, no earlier one works from now on.

    Raises StartupError for a key that is unknown, revoked or over.
    """
    secret = new_secret()
    digest, shown = digest_of(secret.encode()), shown_part(secret)
    with transaction(connection):
        key = find(connection, id)
        if key is None or key.id != id:
            raise StartupError(f"There is no key {id}.", fix="See `qwen-openai keys list`.")
        if not key.is_good(now):
            over = "has expired" if key.revoked is None else "is revoked"
            raise StartupError(
                f"The key {key.name!r} ({id}) {over}; a new secret would open nothing.",
                fix="Make another one with `qwen-openai keys create`.",
            )
        if grace > 0:
            connection.execute(
                "INSERT INTO retired (digest, key, shown, until) "
                "SELECT digest, id, shown, ? FROM keys WHERE id = ?",
                (now + grace, id),
            )
            connection.execute("DELETE FROM retired WHERE until <= ?", (now,))
        else:
            connection.execute("DELETE FROM retired WHERE key = ?", (id,))
        connection.execute(
            "UPDATE keys SET digest = ?, shown = ? WHERE id = ?", (digest, shown, id)
        )
        found = find(connection, id)
    assert found is not None, "a key vanished within a transaction"  # noqa: S101
    return secret, found


def retired(connection: sqlite3.Connection, id: str, *, now: float) -> list[tuple[str, float]]:
    """Return the earlier secrets of a key that still work: what is shown of each, until when."""
    query = "SELECT shown, until FROM retired WHERE key = ? AND until > ? ORDER BY until"
    return connection.execute(query, (id, now)).fetchall()


def load_keys(connection: sqlite3.Connection) -> list[tuple[bytes, Key]]:
    """Return all digests with their keys, for `KeyRing.replace`: those that are revoked or over
    too, since keys are asked for as soon as there ever was one.

    A rotated key comes with each of its secrets, the earlier ones expiring when their grace ends. A
    row that cannot be understood comes as a key that opens nothing, and the others work: left out,
    it would leave a door open that was closed, if it was the only one.
    """
    query = (
        f"SELECT digest, {_COLUMNS} FROM keys UNION ALL "  # noqa: S608
        "SELECT retired.digest, id, name, models, limits, created,"
        " min(until, coalesce(expires, until)), revoked, retired.shown"
        " FROM retired JOIN keys ON keys.id = retired.key"
    )
    loaded = []
    for digest, *row in connection.execute(query):
        try:
            loaded.append((digest, _key(row)))
        except StartupError:
            loaded.append((digest, Key(id=str(row[0]), name=str(row[1]), revoked=0.0)))
    return loaded


def count_good(connection: sqlite3.Connection, *, now: float) -> int:
    """Return how many keys open the door at this Unix time."""
    query = "SELECT count(*) FROM keys WHERE revoked IS NULL AND (expires IS NULL OR expires > ?)"
    count: int = connection.execute(query, (now,)).fetchone()[0]
    return count


def count_made(connection: sqlite3.Connection) -> int:
    """Return how many keys there ever were."""
    count: int = connection.execute("SELECT count(*) FROM keys").fetchone()[0]
    return count


def _named(connection: sqlite3.Connection, name: str) -> Key | None:
    query = (
        f"SELECT {_COLUMNS} FROM keys WHERE name = ?"  # noqa: S608
        " ORDER BY revoked IS NOT NULL, created DESC LIMIT 1"
    )
    row = connection.execute(query, (name,)).fetchone()
    return None if row is None else _key(row)


def _check_name(name: str) -> None:
    fits = 0 < len(name) <= LONGEST_NAME and name.isprintable() and name.strip() == name
    if not fits or name == MASTER.id or name.startswith(("-", ID_PREFIX, PREFIX)):
        raise StartupError(
            f"{name[:80]!r} cannot be the name of a key.",
            fix=f"Use 1 to {LONGEST_NAME} visible characters that do not begin with '-', "
            f"{ID_PREFIX!r} or {PREFIX!r}, and are not {MASTER.id!r}.",
        )


def _check_models(models: Sequence[str]) -> None:
    for model in models:
        if not 0 < len(model) <= _LONGEST_MODEL or not model.isprintable():
            raise StartupError(
                f"{model[:80]!r} cannot be the name of a model.",
                fix=f"Use 1 to {_LONGEST_MODEL} visible characters.",
            )


def _limits_text(limits: KeyLimits) -> str:
    return json.dumps({name: most for name, most in asdict(limits).items() if most is not None})


def _key(row: Sequence[object]) -> Key:
    """Make a key of the values of _COLUMNS. Raises StartupError where a hand has spoilt them."""
    id, name, models, limits, created, expires, revoked, shown = row
    try:
        return Key(
            id=str(id),
            name=str(name),
            models=_read_models(str(models)),
            limits=_read_limits(str(limits)),
            created=_time(created) or 0.0,
            expires=_time(expires),
            revoked=_time(revoked),
            shown=str(shown),
        )
    except ValueError:
        raise StartupError(
            f"What the database says of key {id} cannot be understood, so it opens nothing.",
            fix="Put a backup of the database in its place.",
        ) from None


def _read_models(text: str) -> tuple[str, ...]:
    models = json.loads(text)
    if not isinstance(models, list) or not all(isinstance(each, str) for each in models):
        raise ValueError("no list of names")
    return tuple(models)


def _read_limits(text: str) -> KeyLimits:
    limits = json.loads(text)
    if not isinstance(limits, dict) or limits.keys() - _LIMITS:
        raise ValueError("no limits that we know")
    if not all(type(most) is int and most > 0 for most in limits.values()):
        raise ValueError("no numbers")
    return KeyLimits(**limits)


def _time(value: object) -> float | None:
    return value if isinstance(value, float) else None
