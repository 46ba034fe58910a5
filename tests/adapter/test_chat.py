"""Requests to jobs: roles, system messages, defaults, limits."""

import pytest

from qwen_openai.adapter.chat import chat_job
from qwen_openai.adapter.limits import Limits
from qwen_openai.core import Job, Message, Sampling
from qwen_openai.errors import InvalidRequest
from qwen_openai.families import family_of
from tests.protocol.bodies import HELLO, parsed

FAMILY = family_of("qwen2.5-coder-0.5b")
LIMITS = Limits(max_n=8, max_messages=2048)
MERGED = "system messages merged into one leading message"
MOVED = "system message moved to the front"


def job(**changes: object) -> Job:
    return chat_job(parsed(**changes), id="chatcmpl-1", family=FAMILY, limits=LIMITS)


def turns(*pairs: tuple[str, str]) -> list[object]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_defaults_are_the_familys() -> None:
    made = job()
    assert made == Job(
        id="chatcmpl-1",
        model="m",
        messages=(Message("user", "hi"),),
        sampling=Sampling(temperature=0.7, top_p=0.8, top_k=20, min_p=0.0, repetition_penalty=1.1),
        watched=False,
    )
    assert made.sampling.max_tokens is None


def test_every_value_arrives() -> None:
    made = job(
        temperature=0,
        top_p=1,
        top_k=5,
        min_p=0.1,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1,
        seed=-7,
        max_tokens=9,
        stop=["b", "a", "b"],
        n=8,
        user="u",
    )
    assert made.sampling == Sampling(0, 1, 5, 0.1, 1, -1, 1, -7, 9, ("b", "a"))
    assert made.n == 8
    assert made.ignored == ("user",)


def test_small_translations() -> None:
    assert job(top_k=-1).sampling.top_k == 0
    assert job(top_k=0).sampling.top_k == 0
    assert job(stop="x").sampling.stop == ("x",)
    assert job(max_tokens=9, max_completion_tokens=3).sampling.max_tokens == 3
    assert job(max_tokens=3, max_completion_tokens=9).sampling.max_tokens == 9


@pytest.mark.parametrize(
    ("sent", "made", "changes"),
    [
        ([("user", "a")], [("user", "a")], ()),
        ([("system", "s"), ("user", "a")], [("system", "s"), ("user", "a")], ()),
        ([("developer", "s"), ("user", "a")], [("system", "s"), ("user", "a")], ()),
        ([("system", "s")], [("system", "s")], ()),
        ([("user", "a"), ("system", "s")], [("system", "s"), ("user", "a")], (MOVED,)),
        (
            [("system", "s"), ("developer", "d"), ("user", "a")],
            [("system", "s\n\nd"), ("user", "a")],
            (MERGED,),
        ),
        (
            [("system", "1"), ("user", "a"), ("assistant", "b"), ("system", "2"), ("user", "c")],
            [("system", "1\n\n2"), ("user", "a"), ("assistant", "b"), ("user", "c")],
            (MERGED,),
        ),
        (
            [("user", "a"), ("assistant", "b")],
            [("user", "a"), ("assistant", "b")],
            (),
        ),
    ],
)
def test_one_leading_system_message(
    sent: list[tuple[str, str]], made: list[tuple[str, str]], changes: tuple[str, ...]
) -> None:
    result = job(messages=turns(*sent))
    assert [(message.role, message.content) for message in result.messages] == made
    assert result.changes == changes
    assert not result.continue_final_message


def test_text_parts_are_joined_by_a_newline() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "text", "text": ""},
        {"type": "text", "text": "b"},
    ]
    assert job(messages=[{"role": "user", "content": parts}]).messages[0].content == "a\n\nb"


def test_continuing_the_final_message() -> None:
    messages = turns(("user", "a"), ("assistant", "I th"))
    assert job(messages=messages, continue_final_message=True).continue_final_message


@pytest.mark.parametrize("n", [9, 16384, 10**9])
def test_n_is_limited(n: int) -> None:
    with pytest.raises(InvalidRequest, match=f"between 1 and 8, got {n}") as caught:
        job(n=n)
    assert caught.value.param == "n"


def test_messages_are_limited() -> None:
    request = parsed(messages=HELLO * 3)
    with pytest.raises(InvalidRequest, match="at most 2") as caught:
        chat_job(request, id="x", family=FAMILY, limits=Limits(max_messages=2))
    assert caught.value.param == "messages"
