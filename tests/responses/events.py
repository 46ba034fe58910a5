"""Streams of events as the parser chain makes them, for properties."""

from hypothesis import strategies as st

from qwen_openai.core import (
    Event,
    Finish,
    FinishReason,
    Reasoning,
    Started,
    Text,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStart,
)

texts = st.text(alphabet="ab停😀", max_size=4)
counts = st.integers(0, 3)
numbers = st.floats(max_value=0)
raws = st.sampled_from([b"a", b" b", "停".encode(), b"\xe5\x81", b"\x9c", b""])


def _token(raw: bytes, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    return TokenLogprob(raw.decode("utf-8", "replace"), raw, logprob, top)


alone = st.builds(_token, raws, numbers)
tokens = st.builds(_token, raws, numbers, st.lists(alone, max_size=2).map(tuple))
logprobs = st.lists(tokens, max_size=2).map(tuple)


@st.composite
def choices(
    draw: st.DrawFn, index: int = 0, *, thoughts: bool = True, calls: bool = True
) -> list[Event]:
    """All events of one choice."""
    events: list[Event] = [Started(index, draw(counts), draw(counts))]
    if thoughts:
        for _ in range(draw(counts)):
            events.append(Reasoning(index, draw(texts), draw(counts), draw(logprobs)))
    for _ in range(draw(counts)):
        events.append(Text(index, draw(texts), draw(counts), draw(logprobs)))
    made = draw(st.integers(0, 2)) if calls else 0
    for call in range(made):
        events.append(Text(index, "", draw(counts), draw(logprobs)))
        events.append(ToolCallStart(index, call, f"call_{index}_{call}", draw(st.just("f"))))
        for piece in draw(st.sampled_from([["{}"], ['{"a', '": "停"}']])):
            events.append(ToolCallArguments(index, call, piece))
    reasons: list[FinishReason] = ["tool_calls", "length"] if made else ["stop", "length"]
    known = draw(st.none() | st.integers(0, 20))
    events.append(Finish(index, draw(st.sampled_from(reasons)), known, draw(st.none() | counts)))
    return events


def interleaved(data: st.DataObject, queues: list[list[Event]]) -> list[Event]:
    """The events of several choices, in an order that their streams may have."""
    queues = [list(queue) for queue in queues]
    out: list[Event] = []
    while waiting := [queue for queue in queues if queue]:
        out.append(data.draw(st.sampled_from(waiting)).pop(0))
    return out
