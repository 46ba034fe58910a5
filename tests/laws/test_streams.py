"""The laws of the pipe: a text's split changes nothing, and a stream collected is the answer."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Event, Finish, Job, Sampling, Started, Text, Tool, ToolSyntax, Usage
from qwen_openai.parsing.chain import Chain
from qwen_openai.responses.chat import ChatReply, Wanted
from qwen_openai.responses.fold import Fold
from qwen_openai.sse import DONE, SseDecoder, frame
from tests.parsing.split import split
from tests.responses.collect import collect
from tests.spec import check

texts = st.text(alphabet="ab<停\n😀", max_size=30)
stop_strings = st.lists(st.text(alphabet="ab<停", min_size=1, max_size=4), max_size=4).map(tuple)
cuts = st.lists(st.integers(0, 30), max_size=10)


CALL = '\nAction: f\nAction Input: {"停": "\\ud83d\\ude00 }"}'
replies = st.lists(
    st.sampled_from([CALL, f"Thought: b{CALL}", "\nObservation: ", "Final Answer: ", "<停", "a\n"]),
    max_size=5,
).map("".join)


def through(
    text: str, places: list[int], stops: tuple[str, ...], index: int = 0, *, tools: bool = False
) -> list[Event]:
    """An engine's events for a text in pieces, after the chain."""
    job = Job(id="x", model="m", messages=(), sampling=Sampling(stop=stops), choice=index)
    if tools:
        job = replace(job, tools=(Tool("f"),), tool_syntax="react")
    chain = Chain(job)
    fed: list[Event] = [Started(index, 7, 2)]
    fed += [Text(index, piece, len(piece)) for piece in split(text, places)]
    fed.append(Finish(index, "length", len(text), 3))
    out: list[Event] = []
    for event in fed:
        out += chain.feed(event)
        if isinstance(out[-1], Finish):
            break
    return out


def folded(events: list[Event]) -> Fold:
    fold = Fold(1)
    for event in events:
        fold.add(event)
    return fold


@given(texts, cuts, stop_strings)
def test_the_split_of_a_text_changes_nothing(
    text: str, places: list[int], stops: tuple[str, ...]
) -> None:
    one = folded(through(text, [], stops)).choices[0]
    other = folded(through(text, places, stops)).choices[0]
    assert (one.text, one.reason) == (other.text, other.reason)
    assert not any(stop in one.text for stop in stops)


@given(replies, st.lists(st.integers(0, 200), max_size=10), stop_strings)
def test_the_split_of_calls_changes_nothing(
    text: str, places: list[int], stops: tuple[str, ...]
) -> None:
    one = folded(through(text, [], stops, tools=True)).choices[0]
    other = folded(through(text, places, stops, tools=True)).choices[0]
    assert (one.text, one.tool_calls, one.reason) == (other.text, other.tool_calls, other.reason)


@given(
    st.lists(st.tuples(texts | replies, cuts), min_size=1, max_size=3),
    stop_strings,
    st.booleans(),
    st.data(),
)
def test_a_stream_collected_is_the_plain_answer(
    answers: list[tuple[str, list[int]]],
    stops: tuple[str, ...],
    tools: bool,
    data: st.DataObject,
) -> None:
    n = len(answers)
    queues = [
        through(text, places, stops, index, tools=tools)
        for index, (text, places) in enumerate(answers)
    ]
    reply = ChatReply(
        id="chatcmpl-1",
        model="m",
        created=1,
        system_fingerprint="fp_1",
        wanted=Wanted(n, include_usage=True),
    )
    fold = Fold(n)
    chunks = reply.opening()
    while waiting := [queue for queue in queues if queue]:
        event = data.draw(st.sampled_from(waiting)).pop(0)
        fold.add(event)
        chunks += reply.chunks(event)
    chunks += reply.closing(fold)
    body = reply.body(fold)
    check("CreateChatCompletionResponse", body)
    for chunk in chunks:
        check("CreateChatCompletionStreamResponse", chunk)
    wire = b"".join(map(frame, chunks)) + DONE
    assert collect(SseDecoder().feed(wire)) == body


@given(texts | replies, cuts, st.integers(0, 12), st.sampled_from([None, "react"]))
def test_usage_is_true_for_a_cut_stream(
    text: str, places: list[int], seen: int, syntax: ToolSyntax | None
) -> None:
    pieces = split(text, places)
    sampling = Sampling(stop=("<停", "zz"))
    chain = Chain(Job("x", "m", (), sampling, tools=(Tool("f"),), tool_syntax=syntax))
    fold = Fold(1)
    fold.add(Started(0, 7, 2))
    tokens = 0
    for piece in pieces[:seen]:
        tokens += 2
        for event in chain.feed(Text(0, piece, 2)):
            fold.add(event)
        if fold.choices[0].reason:
            break
    assert fold.usage == Usage(7, tokens, 2)
