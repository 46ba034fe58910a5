"""Frames: whatever the pieces, the same frames come out; nonsense is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.engines.llamacpp.frames import (
    MAX_PAYLOAD,
    Decoder,
    Frame,
    FrameError,
    Kind,
    encode,
)

frames = st.lists(
    st.builds(
        Frame,
        st.sampled_from(Kind),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=200),
    ),
    max_size=8,
)


@given(frames, st.data())
def test_any_split_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    wire = b"".join(encode(*frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    decoder = Decoder()
    received = [
        frame
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)
        for frame in decoder.feed(wire[start:end])
    ]
    assert received == sent


def test_byte_by_byte() -> None:
    decoder = Decoder()
    wire = encode(Kind.CHUNK, 7, b"text")
    assert [decoder.feed(wire[n : n + 1]) for n in range(len(wire) - 1)] == [[]] * (len(wire) - 1)
    assert decoder.feed(wire[-1:]) == [Frame(Kind.CHUNK, 7, b"text")]


def test_a_frame_too_long_is_refused_by_its_header() -> None:
    with pytest.raises(FrameError, match="bytes"):
        Decoder().feed(struct.pack("<IBI", MAX_PAYLOAD + 1, Kind.CHUNK, 1))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(FrameError, match="kind 200"):
        Decoder().feed(struct.pack("<IBI", 0, 200, 1))
