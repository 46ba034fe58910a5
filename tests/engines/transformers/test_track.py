"""One answer: what it hears, when it is complete, and what it leaves out of a request."""

import asyncio
import copy

import pytest
import torch

from qwen_openai.core import Sampling
from qwen_openai.engines.sampling import Picked
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.transformers.track import Track
from qwen_openai.errors import EngineFailed

CPU = torch.device("cpu")


def made(limits: Limits, **sampling: object) -> Track:
    values: dict[str, object] = {"temperature": 0.0, **sampling}
    asked = Sampling(**values)  # type: ignore[arg-type]  # by the tests
    return Track.of([1, 2], asked, limits, None, CPU, 10)


async def test_a_reader_gets_tokens_in_order_and_then_the_failure() -> None:
    track = made(Limits(9, frozenset()))
    reading = asyncio.create_task(track.next())
    await asyncio.sleep(0)
    for news in (Picked(3), Picked(4), EngineFailed("The end.")):
        track.hear(news)
    assert (await reading).token == 3
    assert (await track.next()).token == 4
    with pytest.raises(EngineFailed, match=r"The end\."):
        await track.next()


async def test_a_reader_that_has_left_keeps_nothing() -> None:
    track = made(Limits(9, frozenset()))
    track.hear(Picked(3))
    track.leave()
    track.hear(Picked(4))
    assert track.is_over
    assert not track._news


def test_it_is_complete_with_its_last_token() -> None:
    by_length, by_token = made(Limits(2, frozenset({7}))), made(Limits(9, frozenset({7})))
    for token, length, stopped in ((3, False, False), (7, True, True)):
        by_length.take(token)
        by_token.take(token)
        assert (by_length.is_complete, by_token.is_complete) == (length, stopped)
    assert by_token.length == 4


def test_tokens_that_end_it_are_barred_until_it_may_end() -> None:
    track = made(Limits(9, frozenset({7, 99}), min_tokens=1))
    early = track.rules().barred
    assert early is not None
    assert early.tolist() == [7]  # 99 is none of this vocabulary
    track.take(3)
    assert track.rules().barred is None


def test_starting_it_anew_copies_nothing() -> None:
    track = made(Limits(9, frozenset()))
    assert copy.deepcopy({"track": track})["track"] is track
