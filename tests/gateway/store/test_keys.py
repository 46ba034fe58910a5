"""Rows of keys: what is kept of a secret, who is found, what revoking and rotating leave."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.errors import StartupError
from qwen_openai.gateway.keys import KeyCount, KeyLimits, KeyRing, digest_of
from qwen_openai.gateway.store import keys
from qwen_openai.gateway.store.database import connect

NOW = 1_800_000_000.0
LIMITS = KeyLimits(requests_per_minute=60, tokens_per_day=10**12)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(tmp_path / "gateway.db")
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def any_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = connect(tmp_path_factory.mktemp("any") / "gateway.db")
    yield connection
    connection.close()


def ring(store: sqlite3.Connection, now: float = NOW) -> KeyRing:
    made = KeyRing(clock=lambda: now)
    made.replace(keys.load_keys(store))
    return made


def test_a_key_comes_back_as_it_was_made(store: sqlite3.Connection) -> None:
    secret, key = keys.insert(
        store, "安娜", models=["qwen", "a/b"], limits=LIMITS, expires=NOW + 60, now=NOW
    )
    assert secret.startswith(key.shown.removesuffix("..."))
    assert len(key.shown) < 20 < len(secret)
    assert keys.list_keys(store) == [key]
    assert keys.find(store, key.id) == keys.find(store, "安娜") == key
    assert keys.load_keys(store) == [(digest_of(secret.encode()), key)]
    assert ring(store).find(secret.encode()) == key


def test_the_secret_is_nowhere_in_the_file(store: sqlite3.Connection, tmp_path: Path) -> None:
    secret, key = keys.insert(store, "anna", now=NOW)
    again, _ = keys.rotate(store, key.id, now=NOW, grace=60)
    store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        for each in (secret, again):
            assert each.encode() not in content
            assert each[-20:].encode() not in content


def test_secrets_and_ids_are_all_different(store: sqlite3.Connection) -> None:
    made = [keys.insert(store, f"key {number}", now=NOW) for number in range(50)]
    assert len({secret for secret, _ in made}) == len({key.id for _, key in made}) == 50
    assert keys.count_made(store) == keys.count_good(store, now=NOW) == 50


@pytest.mark.parametrize("revoked", [False, True])
def test_a_name_is_free_again_once_its_key_is_revoked(
    store: sqlite3.Connection, revoked: bool
) -> None:
    _, first = keys.insert(store, "anna", now=NOW)
    if not revoked:
        with pytest.raises(StartupError, match=f"called 'anna' already, {first.id}") as caught:
            keys.insert(store, "anna", now=NOW + 1)
        assert f"keys rotate {first.id}" in caught.value.fix
        assert keys.list_keys(store) == [first]
        return
    keys.revoke(store, first.id, now=NOW)
    _, second = keys.insert(store, "anna", now=NOW + 1)
    assert keys.find(store, "anna") == second
    keys.revoke(store, second.id, now=NOW + 2)
    found = keys.find(store, "anna")
    assert found is not None
    assert found.id == second.id


@pytest.mark.parametrize(
    "name",
    [
        *("", " anna", "anna\n", "a\x00b", "-a", "key_1", "n" * 65, "a\u202eb"),
        # The id of the master key, and what looks like a secret.
        *("master", "sk-qwen-0123"),
    ],
)
def test_a_name_that_is_none_is_refused(store: sqlite3.Connection, name: str) -> None:
    with pytest.raises(StartupError, match="cannot be the name of a key"):
        keys.insert(store, name, now=NOW)
    assert keys.list_keys(store) == []


SQL = ["' OR 1=1--", "'; DROP TABLE keys; --", '" OR ""="', "anna' UNION SELECT * FROM keys--", "%"]


@pytest.mark.parametrize("text", SQL)
def test_no_text_is_taken_for_sql(store: sqlite3.Connection, text: str) -> None:
    secret, _ = keys.insert(store, "anna", now=NOW)
    assert keys.find(store, text) is None
    assert not keys.revoke(store, text, now=NOW)
    with pytest.raises(StartupError, match="There is no key"):
        keys.rotate(store, text, now=NOW)
    assert ring(store).find(text.encode()) is None
    _, key = keys.insert(store, text, models=[text], now=NOW)
    assert keys.find(store, text) == key
    assert ring(store).find(secret.encode()) is not None


@given(
    models=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1), max_size=3
    ),
    most=st.lists(st.none() | st.integers(1, 2**62), min_size=5, max_size=5),
    expires=st.none() | st.floats(0, 1e11),
)
def test_any_key_comes_back(
    any_store: sqlite3.Connection, models: list[str], most: list[int | None], expires: float | None
) -> None:
    limits = KeyLimits(*most)
    _, key = keys.insert(any_store, "k", models=models, limits=limits, expires=expires, now=NOW)
    assert keys.find(any_store, key.id) == key
    keys.revoke(any_store, key.id, now=NOW)


def test_a_revoked_key_opens_nothing_for_ever(store: sqlite3.Connection) -> None:
    secret, key = keys.insert(store, "anna", now=NOW)
    before, _ = keys.rotate(store, key.id, now=NOW, grace=60)
    assert keys.revoke(store, key.id, now=NOW + 1)
    assert not keys.revoke(store, key.id, now=NOW + 2)
    found = keys.find(store, key.id)
    assert found is not None
    assert found.revoked == NOW + 1
    for each in (secret, before):
        assert ring(store).find(each.encode()) is None
    assert ring(store).asks
    assert ring(store).count() == KeyCount(good=0, made=1)
    assert (keys.count_good(store, now=NOW), keys.count_made(store)) == (0, 1)


def test_an_expired_key_opens_nothing(store: sqlite3.Connection) -> None:
    secret, key = keys.insert(store, "anna", expires=NOW + 60, now=NOW)
    assert ring(store, NOW + 59.9).find(secret.encode()) == key
    assert ring(store, NOW + 60).find(secret.encode()) is None
    assert keys.count_good(store, now=NOW + 59.9) == 1
    assert keys.count_good(store, now=NOW + 60) == 0


def test_rotating_changes_the_secret_and_nothing_else(store: sqlite3.Connection) -> None:
    old, key = keys.insert(store, "anna", models=["qwen"], limits=LIMITS, now=NOW)
    new, after = keys.rotate(store, key.id, now=NOW + 1)
    assert (after.id, after.name, after.models, after.limits) == (
        key.id,
        key.name,
        key.models,
        key.limits,
    )
    assert after.shown != key.shown
    assert ring(store).find(old.encode()) is None
    assert ring(store).find(new.encode()) == after


def test_a_grace_lets_the_old_secret_work_for_a_while(store: sqlite3.Connection) -> None:
    old, key = keys.insert(store, "anna", limits=LIMITS, now=NOW)
    new, _ = keys.rotate(store, key.id, now=NOW, grace=600)
    found = ring(store, NOW + 599).find(old.encode())
    assert found is not None
    assert (found.id, found.limits) == (key.id, LIMITS)
    assert ring(store, NOW + 600).find(old.encode()) is None
    assert ring(store, NOW + 600).find(new.encode()) is not None
    assert ring(store).count() == KeyCount(1, 1)
    assert keys.retired(store, key.id, now=NOW) == [(key.shown, NOW + 600)]
    assert keys.retired(store, key.id, now=NOW + 600) == []


def test_a_grace_never_outlives_the_key(store: sqlite3.Connection) -> None:
    old, key = keys.insert(store, "anna", expires=NOW + 60, now=NOW)
    keys.rotate(store, key.id, now=NOW, grace=600)
    assert ring(store, NOW + 59).find(old.encode()) is not None
    assert ring(store, NOW + 60).find(old.encode()) is None


def test_rotating_without_grace_ends_earlier_graces(store: sqlite3.Connection) -> None:
    first, key = keys.insert(store, "anna", now=NOW)
    second, _ = keys.rotate(store, key.id, now=NOW, grace=600)
    third, _ = keys.rotate(store, key.id, now=NOW, grace=600)
    assert all(ring(store).find(each.encode()) for each in (first, second, third))
    fourth, _ = keys.rotate(store, key.id, now=NOW)
    opens = [bool(ring(store).find(each.encode())) for each in (first, second, third, fourth)]
    assert opens == [False, False, False, True]


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_key_that_is_over_is_not_rotated(store: sqlite3.Connection, how: str) -> None:
    _, key = keys.insert(store, "anna", expires=NOW + 60, now=NOW)
    if how == "revoked":
        keys.revoke(store, key.id, now=NOW)
    with pytest.raises(StartupError, match=how) as caught:
        keys.rotate(store, key.id, now=NOW + 60)
    assert "keys create" in caught.value.fix


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("models", "not json"),
        ("models", json.dumps({"qwen": 1})),
        ("limits", json.dumps({"cups_of_tea": 3})),
        ("limits", json.dumps({"tokens_per_day": None})),
        ("limits", json.dumps({"tokens_per_day": True})),
        ("limits", json.dumps({"tokens_per_day": 0})),
        ("limits", "7"),
    ],
)
def test_a_row_that_a_hand_has_spoilt_opens_nothing_and_spoils_no_other(
    store: sqlite3.Connection, column: str, value: str
) -> None:
    spoilt, key = keys.insert(store, "anna", now=NOW)
    good, _ = keys.insert(store, "ben", now=NOW)
    store.execute(f"UPDATE keys SET {column} = ? WHERE id = ?", (value, key.id))
    loaded = ring(store)
    assert loaded.find(spoilt.encode()) is None
    assert loaded.find(good.encode()) is not None
    with pytest.raises(StartupError, match=f"key {key.id} cannot be understood"):
        keys.list_keys(store)


def test_a_row_that_a_hand_has_spoilt_opens_no_door_to_everybody(
    store: sqlite3.Connection,
) -> None:
    """Where it was the only one: a key was made, so one is asked for."""
    secret, _ = keys.insert(store, "anna", now=NOW)
    store.execute("UPDATE keys SET limits = 'none'")
    loaded = ring(store)
    assert loaded.asks
    assert loaded.find(secret.encode()) is None
    assert (loaded.count().good, loaded.count().made) == (0, 1)


@pytest.mark.parametrize("model", ["a\x1b[2Jb", "a\nb", "", "x" * 300])
def test_a_models_name_that_no_terminal_should_see_is_refused(
    store: sqlite3.Connection, model: str
) -> None:
    with pytest.raises(StartupError, match="cannot be the name of a model"):
        keys.insert(store, "anna", models=["qwen", model], now=NOW)
    assert keys.list_keys(store) == []
