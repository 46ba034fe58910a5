"""The ledger: bounded, in order, never in anybody's way."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.gateway.ledger import Ledger
from qwen_openai.observe.record import Record
from tests.gateway.records import record


def ids(records: list[Record]) -> list[str]:
    return [each.request_id for each in records]


def test_what_is_added_is_taken_in_order() -> None:
    ledger = Ledger()
    added = [record() for _ in range(5)]
    for each in added:
        ledger.add(each)
    assert len(ledger) == 5
    assert ids(ledger.take(3)) == ids(added[:3])
    assert ids(ledger.take(3)) == ids(added[3:])
    assert ledger.take(3) == []
    assert ledger.dropped == 0


def test_what_could_not_be_written_comes_first_again() -> None:
    ledger = Ledger()
    added = [record() for _ in range(4)]
    for each in added:
        ledger.add(each)
    ledger.put_back(ledger.take(2))
    assert ids(ledger.take(9)) == ids(added)


def test_a_full_ledger_drops_the_oldest_and_counts_them() -> None:
    ledger = Ledger(most=3)
    added = [record() for _ in range(5)]
    for each in added[:3]:
        ledger.add(each)
    taken = ledger.take(2)
    for each in added[3:]:
        ledger.add(each)
    ledger.put_back(taken)
    assert ids(ledger.take(9)) == ids(added[2:])
    assert ledger.dropped == 2
    for each in added:
        ledger.add(each)
    assert ids(ledger.take(9)) == ids(added[2:])
    assert ledger.dropped == 4


@given(st.lists(st.sampled_from(["add", "take", "fail"]), max_size=60))
def test_nothing_is_lost_uncounted_or_out_of_order(steps: list[str]) -> None:
    ledger = Ledger(most=4)
    added: list[str] = []
    written: list[str] = []
    for step in steps:
        if step == "add":
            made = record()
            added.append(made.request_id)
            ledger.add(made)
        elif step == "take":
            written += ids(ledger.take(3))
        else:
            ledger.put_back(ledger.take(3))
        assert len(ledger) <= 4
        assert len(written) + len(ledger) + ledger.dropped == len(added)
    written += ids(ledger.take(9))
    assert written == [each for each in added if each in set(written)]


def test_many_records_wake_the_writer() -> None:
    ledger = Ledger(many=3)
    for _ in range(2):
        ledger.add(record())
    assert not ledger.due.is_set()
    ledger.add(record())
    assert ledger.due.is_set()


def test_what_asks_for_no_answer_is_no_usage() -> None:
    ledger = Ledger()
    ledger.add(record(model=""))
    assert len(ledger) == 0
    ledger.add(record(model="", outcome="refused"))
    assert len(ledger) == 1


def test_a_closed_ledger_holds_nothing() -> None:
    ledger = Ledger()
    ledger.add(record())
    ledger.close()
    ledger.add(record())
    assert len(ledger) == 0
    assert ledger.dropped == 0


def test_two_threads_lose_nothing() -> None:
    ledger = Ledger(most=50, many=10)
    done = threading.Event()
    taken: list[Record] = []

    def write() -> None:
        fail = False
        while not done.is_set() or len(ledger):
            some = ledger.take(7)
            if fail:
                ledger.put_back(some)
            else:
                taken.extend(some)
            fail = not fail

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(20_000):
        ledger.add(record())
    done.set()
    thread.join(30)
    assert not thread.is_alive()
    assert len(taken) + ledger.dropped == 20_000
    assert len(set(ids(taken))) == len(taken)
