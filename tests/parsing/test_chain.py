"""The chain of one choice: what comes out, and that no token is lost on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Event, Finish, Job, Sampling, Started, Text
from qwen_openai.parsing.chain import Chain


def job(*stops: str) -> Job:
    return Job(id="x", model="m", messages=(), sampling=Sampling(stop=stops))


def run(chain: Chain, events: list[Event]) -> list[Event]:
    out: list[Event] = []
    for event in events:
        out += chain.feed(event)
        if out and isinstance(out[-1], Finish):
            break
    return out


def test_without_stop_strings_events_pass() -> None:
    events: list[Event] = [Started(0, 5), Text(0, "a"), Text(0, "", 2), Finish(0, "length", 3)]
    assert run(Chain(job()), events) == events


def test_a_stop_string_ends_the_choice() -> None:
    events: list[Event] = [
        Started(1, 5),
        Text(1, "one "),
        Text(1, "two S"),
        Text(1, "TO"),
        Text(1, "P three", 2),
        Finish(1, "length", 9),
    ]
    assert run(Chain(job("STOP")), events) == [
        Started(1, 5),
        Text(1, "one "),
        Text(1, "two "),
        Text(1, "", 1),
        Finish(1, "stop", 5),
    ]


def test_text_before_the_stop_string_in_one_piece() -> None:
    assert run(Chain(job("!")), [Text(0, "hi! there", 4)]) == [
        Text(0, "hi", 4),
        Finish(0, "stop", 4),
    ]


def test_held_text_comes_out_at_the_end() -> None:
    events: list[Event] = [Text(0, "a ST"), Finish(0, "length", None, 3)]
    assert run(Chain(job("STOP")), events) == [
        Text(0, "a "),
        Text(0, "ST", 0),
        Finish(0, "length", None, 3),
    ]


@pytest.mark.parametrize(
    ("text", "clean"),
    [("a\ud800b", "a�b"), ("\udcff", "�"), ("\ud83d\ude00", "😀"), ("你好", "你好")],
)
def test_text_is_always_encodable(text: str, clean: str) -> None:
    for stops in ((), ("zzz",)):
        (event,) = Chain(job(*stops)).feed(Text(0, text, 2))
        assert event == Text(0, clean, 2)


pieces = st.lists(st.tuples(st.text(alphabet="ab<", max_size=4), st.integers(0, 3)), max_size=12)
stop_strings = st.lists(st.text(alphabet="ab<", min_size=1, max_size=4), max_size=4)


@given(pieces, stop_strings, st.sampled_from([None, 40]))
def test_tokens_are_exact_at_every_moment(
    fed: list[tuple[str, int]], stops: list[str], total: int | None
) -> None:
    chain = Chain(job(*stops))
    seen = counted = 0
    for text, tokens in fed:
        out = chain.feed(Text(0, text, tokens))
        seen += tokens
        if out and isinstance(out[-1], Finish):
            assert out[-1].completion_tokens == seen
            assert out[-1].reason == "stop"
            return
        counted += sum(event.tokens for event in out if isinstance(event, Text))
        assert counted == seen
    *texts, finish = chain.feed(Finish(0, "length", total))
    assert finish == Finish(0, "length", total)
    assert counted + sum(event.tokens for event in texts if isinstance(event, Text)) == seen
