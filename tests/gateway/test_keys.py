"""The ring: who is let in, from when on keys are asked for, and that nothing opens by mistake."""

import threading
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.gateway.keys import (
    MASTER,
    Key,
    KeyCount,
    KeyRing,
    digest_of,
    new_secret,
    shown_part,
)

ANNA = Key(id="key_1", name="anna")


def _entry(secret: str, key: Key = ANNA) -> tuple[bytes, Key]:
    return digest_of(secret.encode()), key


def test_an_empty_ring_asks_for_nothing_and_knows_nobody() -> None:
    ring = KeyRing()
    assert not ring.asks
    assert ring.find(b"") is None
    assert ring.count() == KeyCount(0, 0)


def test_a_ring_that_always_asks_lets_nobody_in_without_keys() -> None:
    assert KeyRing(always=True).asks


def test_the_master_key_is_asked_for_and_opens() -> None:
    ring = KeyRing("geheim")
    assert ring.asks
    assert ring.find(b"geheim") is MASTER
    assert ring.find(b"Geheim") is None
    ring.replace([_entry("sk-1")])
    assert ring.find(b"geheim") is MASTER
    assert ring.find(b"sk-1") == ANNA


def test_a_key_made_while_an_open_server_runs_is_asked_for_from_then_on() -> None:
    ring = KeyRing()
    ring.replace([])
    assert not ring.asks
    ring.replace([_entry("sk-1")])
    assert ring.asks


def test_it_never_stops_asking() -> None:
    ring = KeyRing()
    ring.replace([_entry("sk-1", replace(ANNA, revoked=1.0))])
    assert ring.asks
    ring.replace([])
    assert ring.asks
    assert ring.find(b"sk-1") is None


def test_a_key_ends_when_it_expires_without_anybody_telling() -> None:
    now = [100.0]
    ring = KeyRing(clock=lambda: now[0])
    ring.replace([_entry("sk-1", replace(ANNA, expires=200.0))])
    assert ring.find(b"sk-1") is not None
    assert ring.count() == KeyCount(good=1, made=1)
    now[0] = 200.0
    assert ring.find(b"sk-1") is None
    assert ring.count() == KeyCount(good=0, made=1)


def test_a_digest_is_no_key() -> None:
    """Who has read the database has no way in."""
    ring = KeyRing("geheim")
    ring.replace([_entry("sk-1")])
    for secret in ("geheim", "sk-1"):
        digest = digest_of(secret.encode())
        assert ring.find(digest) is None
        assert ring.find(digest.hex().encode()) is None


SECRET = new_secret()


@given(st.binary(max_size=100) | st.sampled_from([SECRET[:-1], SECRET + "x"]).map(str.encode))
def test_nothing_but_the_key_opens(given: bytes) -> None:
    ring = KeyRing("geheim")
    ring.replace([_entry(SECRET)])
    expected = {SECRET.encode(): ANNA, b"geheim": MASTER}.get(given)
    assert ring.find(given) == expected


@given(st.integers(0, len(SECRET) - 1), st.integers(1, 127))
def test_no_other_bit_of_it_is_spare(place: int, change: int) -> None:
    ring = KeyRing()
    ring.replace([_entry(SECRET)])
    wrong = bytearray(SECRET.encode())
    wrong[place] ^= change
    assert ring.find(bytes(wrong)) is None


def test_a_secret_is_long_and_shows_little() -> None:
    assert len(SECRET) == len("sk-qwen-") + 43  # 256 bits, six a character
    assert SECRET.isascii()
    assert shown_part(SECRET) == SECRET[:12] + "..."
    assert len({new_secret() for _ in range(1000)}) == 1000


def test_models_are_names_to_the_letter() -> None:
    key = replace(ANNA, models=("qwen",))
    assert key.may_use("qwen")
    assert not any(map(key.may_use, ("", "Qwen", "qwen ", "qwen2", "q")))
    assert ANNA.may_use("anything")


def test_one_thread_may_change_it_while_others_ask() -> None:
    ring = KeyRing()
    steady = _entry("steady")
    ring.replace([steady])
    wrong: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            if ring.find(b"steady") is None or not ring.asks:
                wrong.append("out")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        ring.replace([steady, _entry(f"sk-{number}")])
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
