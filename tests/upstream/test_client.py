"""The client that misses nothing, against the mock alone."""

from collections.abc import Iterator

import pytest

from tests.upstream.client import Call, Heard, chat, heard
from tests.upstream.deltas import whole
from tests.upstream.process import Mock, mocks


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocks("a") as [made]:
        yield made


@pytest.mark.parametrize("stream", [True, False])
async def test_a_whole_answer_is_whole(mock: Mock, stream: bool) -> None:
    answer = await heard(mock.port, "hi", stream=stream, max_tokens=5)
    answer.whole("hi", 5)
    assert answer.done is stream
    assert answer.text == whole("hi", 5)


@pytest.mark.parametrize(("ending", "torn"), [("end", False), ("cut", True), ("reset", True)])
async def test_it_tells_a_torn_end_from_an_orderly_one(mock: Mock, ending: str, torn: bool) -> None:
    text = f"hi mock:at=2,deltas=5,ending={ending}"
    answer = await heard(mock.port, text)
    assert answer.torn is torn
    with pytest.raises(AssertionError):
        answer.whole(text, 5)
    with pytest.raises(AssertionError, match="a silent end"):
        answer.broken(text)


async def test_an_error_event_and_nothing_after_it(mock: Mock) -> None:
    answer = await heard(mock.port, "hi mock:at=2,deltas=5,ending=error")
    assert answer.error is not None
    assert answer.failed > 0
    with pytest.raises(AssertionError, match="after the error"):
        answer.take('{"choices": []}')


async def test_until_reads_no_further_than_it_must(mock: Mock) -> None:
    call = await Call.post(mock.port, chat("hi mock:hang=token,at=3"))
    assert (await call.until("\n2 ")).text == whole("hi mock:hang=token,at=3", 3)
    assert call.leave() > 0
    assert Heard().upstream == ""
