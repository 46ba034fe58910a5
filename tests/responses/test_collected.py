"""A stream put together is the plain answer, whatever is in it; both are what the specification
says."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.responses.chat import ChatReply, ReasoningField, Wanted
from qwen_openai.responses.fold import Fold
from qwen_openai.sse import SseDecoder
from tests.responses.collect import collect
from tests.responses.events import choices, interleaved
from tests.spec import check

fields: st.SearchStrategy[ReasoningField] = st.sampled_from(
    ["reasoning_content", "reasoning", "both"]
)


@given(st.integers(1, 3), fields, st.booleans(), st.booleans(), st.data())
def test_chat(
    n: int, field: ReasoningField, legacy: bool, logprobs: bool, data: st.DataObject
) -> None:
    reply = ChatReply(
        id="chatcmpl-1",
        model="m",
        created=1,
        system_fingerprint="fp_1",
        wanted=Wanted(n, True, field, legacy, logprobs),
    )
    fold = Fold(n)
    chunks = reply.opening()
    for event in interleaved(data, [data.draw(choices(index)) for index in range(n)]):
        fold.add(event)
        chunks += reply.chunks(event)
    chunks += reply.closing(fold)
    body = reply.body(fold)
    check("CreateChatCompletionResponse", body)
    for chunk in chunks:
        check("CreateChatCompletionStreamResponse", chunk)
    wire = b"".join(map(reply.frame, chunks)) + reply.done
    assert collect(SseDecoder().feed(wire), logprobs=logprobs) == body
