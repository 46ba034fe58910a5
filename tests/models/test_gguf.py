"""The GGUF reader: what it reads, and that no file, however it lies, gets more than one error."""

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_openai.errors import StartupError
from qwen_openai.models.gguf import GGUF, read_gguf
from tests.models.tiny_gguf import (
    Tensor,
    encode_gguf,
    tiny_metadata,
    tiny_tensors,
    write_tiny_model,
)

LIE = 2**62
SMALL = encode_gguf(
    {
        "general.architecture": "qwen2",
        "a.number": 7,
        "a.fraction": 0.5,
        "a.truth": True,
        "tokenizer.ggml.tokens": ["a", "b", "<|im_end|>"],
        "tokenizer.ggml.token_type": [1, 1, 3],
    },
    {"t": Tensor((8,), 0, bytes(32))},
)


def read(tmp_path: Path, raw: bytes) -> GGUF:
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    return read_gguf(path)


def refused(tmp_path: Path, raw: bytes) -> str:
    with pytest.raises(StartupError) as caught:
        read(tmp_path, raw)
    assert str(tmp_path) in caught.value.message
    assert caught.value.fix
    return caught.value.message


def test_reads_what_was_written(tmp_path: Path) -> None:
    gguf = read_gguf(write_tiny_model(tmp_path / "m.gguf"))
    expected = tiny_metadata()
    assert list(gguf.metadata) == list(expected)
    assert gguf.metadata["general.name"] == "Tiny Qwen"
    assert gguf.metadata["tokenizer.ggml.tokens"] == expected["tokenizer.ggml.tokens"]
    assert gguf.metadata["tokenizer.ggml.token_type"] == expected["tokenizer.ggml.token_type"]
    assert gguf.metadata["qwen2.rope.freq_base"] == 10000.0
    assert gguf.metadata["tokenizer.ggml.add_bos_token"] is False
    assert {each.name: each.shape[::-1] for each in gguf.tensors} == {
        name: tensor.shape for name, tensor in tiny_tensors().items()
    }
    assert gguf.file_bytes == (tmp_path / "m.gguf").stat().st_size


@pytest.mark.parametrize(
    ("kind", "packed", "value"),
    [
        (0, struct.pack("<B", 255), 255),
        (1, struct.pack("<b", -1), -1),
        (2, struct.pack("<H", 65535), 65535),
        (3, struct.pack("<h", -2), -2),
        (4, struct.pack("<I", 2**32 - 1), 2**32 - 1),
        (5, struct.pack("<i", -3), -3),
        (6, struct.pack("<f", 0.25), 0.25),
        (7, b"\x01", True),
        (8, struct.pack("<Q", 3) + b"abc", "abc"),
        (9, struct.pack("<IQ", 7, 2) + b"\x01\x00", [True, False]),
        (9, struct.pack("<IQIQBB", 9, 1, 0, 2, 1, 2), [[1, 2]]),
        (10, struct.pack("<Q", 2**64 - 1), 2**64 - 1),
        (11, struct.pack("<q", -4), -4),
        (12, struct.pack("<d", 1e300), 1e300),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_every_type(tmp_path: Path, kind: int, packed: bytes, value: object, version: int) -> None:
    raw = b"GGUF" + struct.pack("<IQQQ", version, 0, 1, 1) + b"k" + struct.pack("<I", kind) + packed
    assert read(tmp_path, raw).metadata == {"k": value}


def test_getters_tell_absence_from_a_wrong_type(tmp_path: Path) -> None:
    gguf = read(tmp_path, SMALL)
    assert gguf.text("general.architecture") == "qwen2"
    assert gguf.number("a.number") == 7
    assert gguf.strings("tokenizer.ggml.tokens") == ["a", "b", "<|im_end|>"]
    assert gguf.numbers("tokenizer.ggml.token_type") == [1, 1, 3]
    assert (gguf.text("x"), gguf.number("x"), gguf.strings("x"), gguf.numbers("x")) == (
        None,
        None,
        [],
        [],
    )
    for wrong in (
        lambda: gguf.text("a.number"),
        lambda: gguf.number("a.truth"),
        lambda: gguf.number("a.fraction"),
        lambda: gguf.strings("tokenizer.ggml.token_type"),
        lambda: gguf.numbers("tokenizer.ggml.tokens"),
        lambda: gguf.numbers("a.number"),
    ):
        with pytest.raises(StartupError):
            wrong()


@pytest.mark.parametrize("cut", range(len(SMALL)))
def test_a_file_cut_anywhere_is_truncated(tmp_path: Path, cut: int) -> None:
    refused(tmp_path, SMALL[:cut])


def test_the_data_that_the_header_promises_must_be_there(tmp_path: Path) -> None:
    whole = encode_gguf(tiny_metadata(), tiny_tensors())
    assert "truncated" in refused(tmp_path, whole[:-1])
    assert len(read(tmp_path, whole + b"more").tensors) == len(tiny_tensors())


@given(st.data())
@settings(
    deadline=2000, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_is_one_error_or_none(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 8))
        damage = data.draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([LIE, 2**32, 2**31, 2**64 - 1, 2**20, 0]).map(
                    lambda lie: struct.pack("<Q", lie)
                ),
            )
        )
        raw[place : place + len(damage)] = damage
    try:
        read(tmp_path, bytes(raw))
    except StartupError:
        return


@pytest.mark.parametrize(
    "raw",
    [
        b"GGUF" + struct.pack("<IQQ", 3, 0, LIE),
        b"GGUF" + struct.pack("<IQQ", 3, LIE, 0),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, LIE),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IQ", 8, LIE),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, LIE),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 4_000_000),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 12, 4_000_000),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 4_000_000),
        b"GGUF"
        + struct.pack("<IQQQ", 3, 0, 1, 1)
        + b"k"
        + struct.pack("<I", 9)
        + struct.pack("<IQ", 9, 1) * 5000,
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<I", 2**31),
    ],
)
def test_a_lying_size_costs_neither_memory_nor_time(tmp_path: Path, raw: bytes) -> None:
    tracemalloc.start()
    try:
        refused(tmp_path, raw.ljust(4096, b"\0"))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_huge_tensor_shapes_are_numbers_only(tmp_path: Path) -> None:
    raw = encode_gguf({}, {"t": Tensor((2**63, 2**63, 2**63, 2**63), 0, b"")})
    assert "truncated" in refused(tmp_path, raw)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "truncated"),
        (b"GGML" + bytes(64), "begin with the letters GGUF"),
        (b"PK\x03\x04" + bytes(64), "begin with the letters GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "of version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (encode_gguf({"a": "b"}).replace(b"b", b"\xff"), "not UTF-8"),
        (encode_gguf({"a": 1, "b": 2}).replace(b"b", b"a"), "twice"),
        (encode_gguf({"general.alignment": 0}), "alignment"),
        (encode_gguf({"general.alignment": "x"}), "alignment"),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IQ", 99, 0),
            "unknown type 99",
        ),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, raw: bytes, reason: str) -> None:
    assert reason in refused(tmp_path, raw)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.gguf", tmp_path):
        with pytest.raises(StartupError) as caught:
            read_gguf(path)
        assert "cannot be read" in caught.value.message
