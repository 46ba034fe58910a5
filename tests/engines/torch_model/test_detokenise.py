"""Ids to text, one at a time: byte for byte what the whole gives."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_openai.engines.torch_model.detokenise import Detokeniser
from qwen_openai.prompting.bpe import Bpe

PROPERTY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def bpe(qwen2_folder: Path) -> Bpe:
    """Its first 256 tokens are the single bytes."""
    return Bpe(qwen2_folder / "tokenizer.json")


@pytest.fixture(scope="module")
def byte_ids(bpe: Bpe) -> dict[int, int]:
    ids = {bpe.piece(number): number for number in range(bpe.size)}
    return {byte: ids[bytes([byte])] for byte in range(256)}


def spell(bpe: Bpe, ids: list[int]) -> list[str]:
    detokeniser = Detokeniser(bpe)
    return [*map(detokeniser.feed, ids), detokeniser.flush()]


@given(raw=st.one_of(st.binary(max_size=24), st.text(max_size=12).map(str.encode)))
@PROPERTY
def test_bytes_one_at_a_time(bpe: Bpe, byte_ids: dict[int, int], raw: bytes) -> None:
    pieces = spell(bpe, [byte_ids[byte] for byte in raw])
    assert "".join(pieces) == raw.decode("utf-8", "replace")


@given(ids=st.lists(st.integers(0, 400), max_size=30))
@PROPERTY
def test_any_ids(bpe: Bpe, ids: list[int]) -> None:
    """Tokens of several bytes, control tokens of both kinds, and ids that stand for nothing."""
    raw = b"".join(bpe.piece(number) for number in ids if number not in bpe.special)
    assert "".join(spell(bpe, ids)) == raw.decode("utf-8", "replace")


@given(text=st.text(max_size=20))
@PROPERTY
def test_no_piece_has_half_a_character(bpe: Bpe, text: str) -> None:
    encoded = bpe.encode(text)
    pieces = spell(bpe, encoded)
    assert "".join(pieces) == bpe.decode(encoded)
    assert pieces[-1] == ""
    assert text.count("\ufffd") == "".join(pieces).count("\ufffd")


def test_an_emoji_is_held_back_until_it_is_whole(bpe: Bpe, byte_ids: dict[int, int]) -> None:
    ids = [byte_ids[byte] for byte in "😀!".encode()]
    assert spell(bpe, ids) == ["", "", "", "😀", "!", ""]
    assert spell(bpe, ids[:3]) == ["", "", "", "\ufffd"]
    assert spell(bpe, [*ids[:2], *ids[4:]]) == ["", "", "\ufffd!", ""]


def test_only_special_tokens_are_left_out(bpe: Bpe) -> None:
    ids = [bpe.control[token] for token in ("<|im_start|>", "<tool_call>", "<think>", "<|im_end|>")]
    assert spell(bpe, ids) == ["", "<tool_call>", "<think>", "", ""]
