"""The bench of the gateway measures what it says, on a mock that nothing stands in front of."""

import asyncio
import json

import pytest

from bench.gateway import Contender, measure, pieces
from tests.upstream.deltas import delta
from tests.upstream.process import mocks


def _stream(*texts: str) -> bytes:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode()


def test_pieces_are_counted_and_a_lost_or_repeated_one_is_found() -> None:
    whole = [delta("a", index) for index in range(4)]
    assert pieces("a", _stream(*whole) + b"data: [DONE]\n\n") == 4
    assert pieces("a", _stream(*whole[:2])) == 2
    for wrong in (whole[1:], [*whole, whole[-1]], [whole[1], whole[0]], [delta("b", 0)]):
        with pytest.raises(AssertionError):
            pieces("a", _stream(*wrong))


def test_a_run_has_every_figure() -> None:
    with mocks("mock", arguments=["--model", "mock-model"]) as [mock]:
        straight = Contender("straight", mock.port)
        again = Contender("again", mock.port, pids=(mock.pid,))
        asyncio.run(measure([straight, again], mock, quick=True))
    assert straight.figures["pieces lost"] == [0]
    assert straight.figures["requests/s"][0] > 0
    assert straight.figures["stream, s"][0] > 63 * 0.02
    assert set(straight.figures) < set(again.figures)
