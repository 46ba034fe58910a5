"""Frames out, events in, at any split."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.sse import DONE, EventTooLong, SseDecoder, comment, frame
from tests.parsing.split import split


def decode(*chunks: bytes) -> list[str]:
    decoder = SseDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.flush()


def test_frames() -> None:
    assert frame({"a": "你\n"}) == 'data: {"a":"你\\n"}\n\n'.encode()
    assert DONE == b"data: [DONE]\n\n"
    assert comment("ping") == b": ping\n\n"
    assert comment("a\r\nb\ud800") == b": a b?\n\n"


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", ["a", "b", "c"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data\n\ndata:\n\n", ["", ""]),
        (b": ping\n\ndata: a\n\n: ping\n\n", ["a"]),
        (b"event: error\nid: 1\nretry: 5\ndata: a\n\n", ["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data: \xff\n\n", ["\ufffd"]),
        (b"data: a", ["a"]),
        (b"data: a\n", ["a"]),
        (b"\n\n\n", []),
        (b"", []),
        ("data: 你好😀\n\n".encode(), ["你好😀"]),
    ],
)
def test_decoding_whole_bytewise_and_cut(wire: bytes, events: list[str]) -> None:
    assert decode(wire) == events
    assert decode(*(wire[i : i + 1] for i in range(len(wire)))) == events
    for cut in range(len(wire)):
        assert decode(wire[:cut], b"", wire[cut:]) == events


def test_an_event_is_out_as_soon_as_it_is_complete() -> None:
    for end in (b"\n\n", b"\r\r", b"\r\n\r"):
        assert SseDecoder().feed(b"data: a" + end) == ["a"]


lines = st.binary(max_size=12) | st.sampled_from(
    [b"", b"data: x", b"data", b": c", b"data: \xe4\xbd\xa0", b"event: y", b"\xef\xbb\xbfdata: z"]
)
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(lines, ends), max_size=8), st.lists(st.integers(0, 100), max_size=12))
def test_any_split_gives_the_same_events(parts: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    wire = b"".join(line + end for line, end in parts)
    assert decode(*split(wire, cuts)) == decode(wire)


@given(st.lists(st.dictionaries(st.text(), st.text() | st.none() | st.integers(-9, 9)), max_size=4))
def test_what_is_framed_is_decoded(values: list[dict[str, object]]) -> None:
    assert [json.loads(event) for event in decode(*map(frame, values))] == values


@pytest.mark.parametrize("wire", [b"data: " + b"x" * 200, b"data: xxxxxxxx\n" * 20])
def test_an_endless_event_is_an_error(wire: bytes) -> None:
    decoder = SseDecoder(max_event_bytes=100)
    pieces = split(wire, range(0, len(wire), 10))
    with pytest.raises(EventTooLong):
        [decoder.feed(piece) for piece in pieces]
