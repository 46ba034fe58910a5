"""Entries of log probabilities through the chain: those of the text that is sent, with it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Event, Finish, Reasoning, Sampling, Text, TokenLogprob
from qwen_openai.parsing.chain import Chain
from tests.parsing.corpus import TOOLS, X_TEXT
from tests.parsing.whole import Whole, job, run, tokens_of

LOGPROBS = Sampling(stop=("STOP",), logprobs=1)


def entries(whole: Whole) -> list[str]:
    return [entry.text for entry in whole.logprobs]


def test_entries_of_a_stop_string_do_not_come() -> None:
    whole = run(job(sampling=LOGPROBS), ["a", " S", "TO", "P b", "c"])
    assert (whole.text, entries(whole)) == ("a ", ["a"])
    kept = run(job(sampling=replace(LOGPROBS, include_stop=True)), ["a", " S", "TO", "P", "b"])
    assert (kept.text, entries(kept)) == ("a STOP", ["a", " S", "TO", "P"])


def test_entries_wait_for_their_text() -> None:
    chain = Chain(job(sampling=LOGPROBS))
    one, two, three = tokens_of(["a", "S", "b"])
    assert chain.feed(one) == [one]
    assert chain.feed(two) == [Text(0, "", 1)]
    assert chain.feed(three) == [Text(0, "Sb", 1, two.logprobs + three.logprobs)]
    assert chain.feed(two) == [Text(0, "", 1)]
    assert chain.feed(Finish(0, "length")) == [Text(0, "S", 0, two.logprobs), Finish(0, "length")]


def test_a_part_of_a_character_waits_for_the_others() -> None:
    raw = "停".encode()
    halves = [TokenLogprob("�", raw[:1], -1.0), TokenLogprob("�", raw[1:], -1.0)]
    fed: list[Event] = [Text(0, "", 1, (halves[0],)), Text(0, "停", 1, (halves[1],))]
    stopped, shown = (
        Chain(job(sampling=replace(LOGPROBS, stop=("停",)))),
        Chain(job(sampling=LOGPROBS)),
    )
    assert [stopped.feed(event) for event in fed] == [[Text(0, "", 1)], [Finish(0, "stop", 2)]]
    assert [shown.feed(event) for event in fed] == [
        [Text(0, "", 1)], [Text(0, "停", 1, tuple(halves))]
    ]  # fmt: skip


def test_bytes_that_are_no_text_belong_to_the_whole_piece() -> None:
    broken = TokenLogprob("�", b"\xff", -1.0)
    chain = Chain(job(sampling=LOGPROBS))
    assert chain.feed(Text(0, "�", 1, (broken,))) == [Text(0, "�", 1, (broken,))]
    (after,) = tokens_of(["a"])
    assert chain.feed(after) == [after]


def test_entries_of_thoughts_and_calls_come_in_order() -> None:
    pieces = ["<think>", "a", "</think>", "\n\n", "b", "\n", *X_TEXT.split(" "), "\n"]
    made = job(thinks=True, tools=TOOLS, tool_syntax="hermes", sampling=LOGPROBS)
    chain = Chain(made)
    out = [event for token in tokens_of(pieces) for event in chain.feed(token)]
    out += chain.feed(Finish(0, "stop"))
    thoughts = [e.text for event in out if isinstance(event, Reasoning) for e in event.logprobs]
    answer = [e.text for event in out if isinstance(event, Text) for e in event.logprobs]
    assert thoughts == pieces[:4]
    assert answer == pieces[4:]
    assert sum(event.tokens for event in out if isinstance(event, Text | Reasoning)) == len(pieces)


@given(st.lists(st.text("aSTOP<", min_size=1, max_size=3), max_size=12), st.booleans())
def test_entries_are_those_of_the_text_that_was_sent(pieces: list[str], include: bool) -> None:
    made = job(sampling=replace(LOGPROBS, include_stop=include))
    whole = run(made, pieces)
    seen = "".join(entries(whole))
    assert whole.text.startswith(seen)
    following = pieces[len(whole.logprobs) : len(whole.logprobs) + 1]
    assert not following or not whole.text.startswith(seen + following[0])
