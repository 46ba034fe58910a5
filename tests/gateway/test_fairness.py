"""The order of the queue between owners: by tokens, oldest first for each."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.gateway.fairness import FairQueue, Turn


def filled(*turns: tuple[str, int]) -> FairQueue[Turn]:
    queue: FairQueue[Turn] = FairQueue()
    for number, (owner, tokens) in enumerate(turns):
        queue.add(Turn(number, owner, tokens))
    return queue


def order(queue: FairQueue[Turn]) -> list[int]:
    return [queue.pop().number for _ in range(len(queue))]


@given(st.lists(st.integers(1, 100), max_size=20))
def test_one_owner_is_served_in_the_order_of_arrival(sizes: list[int]) -> None:
    assert order(filled(*(("a", size) for size in sizes))) == list(range(len(sizes)))


def test_a_calm_owner_comes_next_however_many_wait() -> None:
    queue = filled(*[("flood", 100)] * 50)
    assert [queue.pop().number for _ in range(10)] == list(range(10))
    queue.add(Turn(50, "calm", 100))
    assert [queue.pop().number for _ in range(3)] == [50, 10, 11]


def test_work_is_shared_by_tokens_and_not_by_requests() -> None:
    queue = filled(*[("large", 300), ("small", 100)] * 60)
    served = [queue.pop() for _ in range(40)]
    taken = {name: sum(t.tokens for t in served if t.owner == name) for name in ("large", "small")}
    assert abs(taken["large"] - taken["small"]) <= 300


def test_what_was_taken_counts_and_not_what_was_reckoned() -> None:
    """Two owners whose work is as large, one of whom says ten times as much before."""
    queue: FairQueue[Turn] = FairQueue()
    for number in range(200):
        queue.add(Turn(number, "a" if number % 2 else "b", 1000 if number % 2 else 100))
    served = []
    for _ in range(100):
        turn = queue.pop()
        served.append(turn.owner)
        queue.correct(turn, 100)
    assert abs(served.count("a") - served.count("b")) <= 2


def test_work_that_did_not_wait_counts_too() -> None:
    queue: FairQueue[Turn] = FairQueue()
    for number in range(4):
        queue.begin(Turn(number, "a", 100))
    queue.add(Turn(4, "a", 100))
    queue.add(Turn(5, "b", 100))
    assert order(queue) == [5, 4]


def test_who_was_away_has_saved_nothing() -> None:
    queue = filled(*[("a", 10)] * 100)
    for _ in range(50):
        queue.pop()
    for number in range(100, 120):
        queue.add(Turn(number, "b", 10))
    owners = [queue.pop().owner for _ in range(20)]
    assert abs(owners.count("a") - owners.count("b")) <= 1


Step = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("abcd"), st.integers(1, 50)),
    st.tuples(st.sampled_from(["pop", "remove", "correct"]), st.just(""), st.integers(0, 60)),
)


@given(st.lists(Step, max_size=120))
def test_nothing_is_lost_and_nobody_waits_for_ever(steps: list[tuple[str, str, int]]) -> None:
    queue: FairQueue[Turn] = FairQueue()
    waiting: dict[int, Turn] = {}
    running: list[Turn] = []
    for number, (what, owner, size) in enumerate(steps):
        if what == "add":
            waiting[number] = Turn(number, owner, size)
            queue.add(waiting[number])
        elif what == "pop" and waiting:
            turn = queue.pop()
            same = [each for each in waiting.values() if each.owner == turn.owner]
            assert turn.number == min(each.number for each in same)
            running.append(waiting.pop(turn.number))
        elif what == "remove" and waiting:
            turn = waiting.pop(list(waiting)[size % len(waiting)])
            assert queue.remove(turn)
            assert not queue.remove(turn)
        elif what == "correct" and running:
            queue.correct(running.pop(size % len(running)), size)
        assert len(queue) == len(waiting)
        longest = max((_waiting_of(waiting, each) for each in "abcd"), default=0)
        for name in "abcd":
            out = queue.displaced_by(name, 1, 1)
            assert all(turn.number in waiting for turn in out)
            if _waiting_of(waiting, name) + 2 <= longest:
                [gone] = out
                theirs = [t.number for t in waiting.values() if t.owner == gone.owner]
                assert (gone.number, len(theirs)) == (max(theirs), longest)
    assert sorted(order(queue)) == sorted(waiting)


def _waiting_of(waiting: dict[int, Turn], owner: str) -> int:
    return sum(turn.owner == owner for turn in waiting.values())


def test_two_owners_do_not_push_each_other_out_by_turns() -> None:
    queue = filled(("flood", 10))
    queue.begin(Turn(1, "flood", 10))
    [out] = queue.displaced_by("calm", 1, 1)
    queue.remove(out)
    queue.add(Turn(2, "calm", 10))
    assert queue.displaced_by("flood", 1, 1) == []


def test_several_places_are_made_of_one_owners_newest_or_not_at_all() -> None:
    queue = filled(*[("flood", 10)] * 6)
    assert [turn.number for turn in queue.displaced_by("calm", 2, 2)] == [5, 4]
    assert queue.displaced_by("calm", 4, 4) == []
    assert queue.displaced_by("flood", 1, 1) == []


def test_memory_is_bounded_by_who_waits() -> None:
    queue: FairQueue[Turn] = FairQueue()
    first = Turn(0, "first", 1000)
    queue.add(first)
    for number in range(1, 5000, 2):
        queue.add(Turn(number, f"k{number}", 1))
        queue.add(Turn(number + 1, f"k{number}", 1))
        queue.pop()
        queue.pop()
        queue.correct(first, 1000 + number % 2)
    assert len(queue._owners) < 200
    assert len(queue._heap) < 200
