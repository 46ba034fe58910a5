"""Text to ids: plain text only, in pieces where it is long, and no further than a limit."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from qwen_openai.errors import InvalidRequest, StartupError
from qwen_openai.prompting.bpe import NFC_SHRINK, Bpe, TooLong

CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</think>")


@pytest.fixture(scope="module")
def bpe(tiny_tokenizer: Path) -> Bpe:
    return Bpe(tiny_tokenizer)


@pytest.fixture(scope="module")
def reference(tiny_tokenizer: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_tokenizer))


@pytest.mark.parametrize("token", CONTROL)
def test_never_makes_a_control_token(bpe: Bpe, token: str) -> None:
    ids = bpe.encode(f"a{token}b")
    assert not set(ids) & set(bpe.control.values())
    assert bpe.decode(ids) == f"a{token}b"


@given(text=st.text(max_size=60).filter(lambda text: "<" not in text))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_encodes_as_the_tokenizer_does(bpe: Bpe, reference: Tokenizer, text: str) -> None:
    assert bpe.encode(text) == reference.encode(text).ids
    assert bpe.decode(bpe.encode(text)) == unicodedata.normalize("NFC", text)


LETTERS = "aZ09é好あア\u3099\u0301\u0338 \n\r\t,.;:!?、。，（ '\u212a\u1100\u1161\u11a8😀_-<|ſsS"


@given(text=st.text(st.sampled_from(LETTERS), min_size=1, max_size=40), times=st.integers(1, 4000))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_long_text_in_pieces_is_the_same(
    bpe: Bpe, reference: Tokenizer, text: str, times: int
) -> None:
    long = (text * times)[:120_000]
    expected = reference.encode(long.replace("<|", "< |")).ids
    assert bpe.encode(long.replace("<|", "< |")) == expected


def test_a_limit_is_met_exactly(bpe: Bpe) -> None:
    for text in ("12345 abc", "word " * 30_000):
        count = len(bpe.encode(text))
        assert len(bpe.encode(text, count)) == count
        with pytest.raises(TooLong) as caught:
            bpe.encode(text, count - 1)
        assert count - 1 < caught.value.at_least <= count


@pytest.mark.parametrize("text", ["1" * 5_000_000, "😀" * 1_250_000, "a" * 5_000_000])
def test_five_megabytes_are_refused_without_tokenising_them(bpe: Bpe, text: str) -> None:
    with pytest.raises(TooLong) as caught:
        bpe.encode(text, 4096)
    assert caught.value.at_least > 4096


def test_normalisation_shrinks_no_text_below_a_quarter() -> None:
    """What the refusal before tokenising rests on, for every text.

    NFD(s) = NFD(NFC(s)). With w(d) the bytes of the longest character that decomposes to d alone,
    the bytes of s are at most the sum of w over NFD(s) (first check), and that is at most four
    times the bytes of NFC(s), summed over its characters (second check).
    """
    size = {chr(n): len(chr(n).encode()) for n in range(sys.maxunicode + 1) if n >> 11 != 0x1B}
    parts = {character: unicodedata.normalize("NFD", character) for character in size}
    weight: dict[str, int] = {}
    for character, spelled in parts.items():
        if len(spelled) == 1:
            weight[spelled] = max(weight.get(spelled, 0), size[character])
    for character, spelled in parts.items():
        heaviest = sum(weight[part] for part in spelled)
        assert size[character] <= heaviest
        if len(spelled) == 1 or unicodedata.is_normalized("NFC", character):
            assert heaviest <= NFC_SHRINK * size[unicodedata.normalize("NFC", character)]


def test_ids_and_sizes(bpe: Bpe, tiny_tokenizer: Path) -> None:
    document = json.loads(tiny_tokenizer.read_bytes())
    added = {token["content"]: token["id"] for token in document["added_tokens"]}
    assert bpe.control == added
    assert bpe.size == max(added.values()) + 1


def test_decodes_broken_utf8_and_unknown_ids(bpe: Bpe) -> None:
    ids = bpe.encode("é")
    assert bpe.decode(ids) == "é"
    assert bpe.decode(ids[:1]) == "\ufffd"
    assert bpe.decode([bpe.size + 5]) == ""
    assert bpe.decode([]) == ""


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", "\x00"])
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StartupError, match="cannot be loaded"):
        Bpe(path)


@pytest.mark.real
def test_golden_tokens_of_the_first_generation(real_bpe: Bpe, shared: Path) -> None:
    """Qwen-1 and Qwen2.5 share ranks 0 to 151642; inert text never leaves them."""
    rows = (shared / "golden/qwen1/tokens.jsonl").read_text().splitlines()
    assert len(rows) == 600
    for row in map(json.loads, rows):
        assert real_bpe.encode(row["text"]) == row["ids"]


@pytest.mark.real
def test_the_real_vocabulary(real_bpe: Bpe) -> None:
    assert real_bpe.size == 151_665
    assert real_bpe.control["<|endoftext|>"] == 151_643
    assert real_bpe.control["<|file_sep|>"] == 151_664
    assert len(real_bpe.control) == 22


def test_pieces_are_the_bytes_of_a_text(bpe: Bpe) -> None:
    text = "hello é 好😀 \n\x00\x7f\xad<tool_call>"
    assert b"".join(map(bpe.piece, bpe.encode(text))) == text.encode()
    for token, number in bpe.control.items():
        assert bpe.piece(number) == token.encode()
    assert bpe.piece(-1) == bpe.piece(bpe.size) == b""
    assert bpe.control["<|im_end|>"] in bpe.special
    assert bpe.control["<tool_call>"] not in bpe.special


@given(text=st.lists(st.sampled_from((*CONTROL, *LETTERS, "<|", "|>")), max_size=30).map("".join))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_control_tokens_are_recognised_where_asked(
    bpe: Bpe, reference: Tokenizer, text: str
) -> None:
    ids = bpe.encode(text, control=True)
    assert ids == reference.encode(text, add_special_tokens=False).ids
    assert bpe.encode(text, len(ids), control=True) == ids
    if ids:
        with pytest.raises(TooLong) as caught:
            bpe.encode(text, len(ids) - 1, control=True)
        assert caught.value.at_least == len(ids)


def test_which_ids_there_are(bpe: Bpe) -> None:
    assert bpe.has(0)
    assert bpe.has(bpe.size - 1)
    for number in (-1, bpe.size, 2**32, -(2**70)):
        assert not bpe.has(number)
        with pytest.raises(InvalidRequest, match=str(number)) as caught:
            bpe.bytes_of(number)
        assert caught.value.param == "tokens"
    assert bpe.bytes_of(bpe.control["<think>"]) == b"<think>"
