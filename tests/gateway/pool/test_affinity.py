"""What conversations are known by."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Job, Message, RawPrompt, Role, ToolCall
from qwen_openai.gateway.pool.affinity import Affinity, trail_of

ROLES: list[Role] = ["system", "user", "assistant", "tool"]
MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(ROLES), st.text("ab:1 ", max_size=4)), max_size=8
)


def talk(*messages: Message) -> Job:
    return Job("1", "m", messages)


@given(MESSAGES, MESSAGES)
def test_two_trails_agree_just_as_far_as_the_conversations(
    one: list[Message], other: list[Message]
) -> None:
    user = Message("user", "x")
    left, right = trail_of(talk(user, *one), "m"), trail_of(talk(user, *other), "m")
    assert (len(left), len(right)) == (len(one) + 1, len(other) + 1)
    same = 1 + next(
        (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )
    assert left[:same] == right[:same]
    assert not set(left[same:]) & set(right[same:])


def test_calls_models_and_roles_tell_conversations_apart() -> None:
    plain = Message("assistant", "x")
    called = replace(plain, tool_calls=(ToolCall("c", "f", "{}"),))
    trails = {
        trail_of(job, model)[-1]
        for job in (talk(plain), talk(called), talk(replace(plain, role="user")))
        for model in ("m", "n")
    }
    assert len(trails) == 6
    again = replace(plain, tool_calls=(ToolCall("another id", "f", "{}"),))
    assert trail_of(talk(called), "m") == trail_of(talk(again), "m")


def test_what_only_sets_the_scene_leads_nowhere_by_itself() -> None:
    system = Message("system", "Be kind.")
    first = trail_of(talk(system, Message("user", "a")), "m")
    second = trail_of(talk(system, Message("user", "b")), "m")
    assert (len(first), len(second)) == (1, 1)
    assert first != second
    assert trail_of(talk(system), "m") == []


def prompt(text: str | tuple[int, ...]) -> Job:
    return Job("1", "m", (), prompt=RawPrompt(text))


@pytest.mark.parametrize("unit", ["ab", (7, 2**40)])
def test_prompts_are_known_by_their_blocks(unit: str | tuple[int, ...]) -> None:
    long = trail_of(prompt(unit * 1536), "m")
    longer = trail_of(prompt(unit * 2000), "m")
    assert (len(long), len(longer)) == (3, 4)
    assert long == longer[:3]
    assert trail_of(prompt(unit), "m") != trail_of(prompt(unit * 2), "m")
    assert trail_of(prompt(unit[:0]), "m") == []


def test_the_longest_known_beginning_wins() -> None:
    affinity = Affinity()
    messages = [Message("user", str(number)) for number in range(5)]
    affinity.remember(trail_of(talk(*messages[:2]), "m"), "a")
    affinity.remember(trail_of(talk(*messages[:4]), "m")[2:], "b")
    assert affinity.find(trail_of(talk(*messages), "m")) == "b"
    assert affinity.find(trail_of(talk(*messages[:3]), "m")) == "b"
    assert affinity.find(trail_of(talk(*messages[:2], Message("user", "?")), "m")) == "a"
    assert affinity.find(trail_of(talk(Message("user", "?")), "m")) is None
    assert affinity.find(()) is None


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    affinity = Affinity(most=100)
    trails = [trail_of(talk(Message("user", str(number))), "m") for number in range(1000)]
    for trail in trails:
        affinity.remember(trail, "a")
        affinity.remember(trails[0], "a")
    assert len(affinity) == 100
    assert affinity.find(trails[0]) == "a"
    assert affinity.find(trails[-1]) == "a"
    assert affinity.find(trails[1]) is None
    long = talk(*(Message("user", str(number)) for number in range(2048)))
    fresh = Affinity()
    fresh.remember(trail_of(long, "m"), "a")
    assert len(fresh) <= 16


@pytest.mark.parametrize("role", ["system", "user"])
def test_long_texts_are_known_by_their_ends_and_lengths(role: Role) -> None:
    big = "字" * (8 * 2**20)
    talks = [
        talk(Message(role, text), *rest)
        for text in (big, "X" + big[1:], big[1:] + "X", big + "字")
        for rest in ([Message("user", "a")], [Message("user", "b")])
    ]
    begun = time.perf_counter()
    trails = [trail_of(each, "m") for each in talks]
    seconds = (time.perf_counter() - begun) / len(talks)
    assert len({trail[-1] for trail in trails}) == len(talks)
    # A stall of the loop is promised to stay under 0.1 s; five times that is a failure.
    assert seconds < 0.5


def test_a_long_conversation_of_long_texts_goes_on_to_be_told_apart() -> None:
    long = [Message("user", f"{number} " * 20_000) for number in range(100)]
    one, other = trail_of(talk(*long), "m"), trail_of(talk(*long[:-1], Message("user", "?")), "m")
    assert len(set(one)) == 100
    assert one[:-1] == other[:-1]
    assert one[-1] != other[-1]


@pytest.mark.parametrize(("unit", "most"), [("字", 128), ((7,), 32)])
def test_of_a_huge_prompt_the_first_blocks_count(unit: str | tuple[int, ...], most: int) -> None:
    assert len(trail_of(prompt(unit * 2**20), "m")) == most
