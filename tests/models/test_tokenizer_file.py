"""The tokenizer.json made of a GGUF's metadata."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from qwen_openai.errors import StartupError
from qwen_openai.models.gguf import read_gguf
from qwen_openai.models.tokenizer_file import build_tokenizer
from qwen_openai.prompting.bpe import byte_letters
from tests.models.tiny_gguf import byte_alphabet, tiny_vocabulary, write_tiny_model

TOKENS, KINDS, MERGES = tiny_vocabulary()


def build(tmp_path: Path, **changes: str | Sequence[str] | Sequence[int] | None) -> Tokenizer:
    gguf = read_gguf(write_tiny_model(tmp_path / "m.gguf", **changes))
    return Tokenizer.from_buffer(build_tokenizer(gguf))


def test_every_token_keeps_its_id(tmp_path: Path) -> None:
    tokenizer = build(tmp_path)
    for number, (token, kind) in enumerate(zip(TOKENS, KINDS, strict=True)):
        assert tokenizer.token_to_id(token) == (None if kind == 5 else number)


def test_control_tokens_are_special_and_user_defined_ones_are_not(tmp_path: Path) -> None:
    added = build(tmp_path).get_added_tokens_decoder()
    assert {number: token.special for number, token in added.items()} == {
        number: kind == 3 for number, kind in enumerate(KINDS) if kind in (3, 4)
    }
    assert not any(token.normalized or token.lstrip or token.rstrip for token in added.values())


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("hello world", ["hello", "Ġ", "world"]),
        ("e\u0301", ["Ã", "©"]),  # composed by NFC, then two bytes
        ("12", ["1", "2"]),
        ("<|im_end|>", ["<|im_end|>"]),
        ("<tool_call>", ["<tool_call>"]),
        ("[PAD0]", ["[", "P", "A", "D", "0", "]"]),
    ],
)
def test_tokenises(tmp_path: Path, text: str, tokens: list[str]) -> None:
    assert build(tmp_path).encode(text).tokens == tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I'M there", ["I", "'M", "Ġthere"]),
        ("a  b\n\n c", ["a", "Ġ", "Ġb", "ĊĊ", "Ġc"]),
        ("x=1;\ny", ["x", "=", "1", ";Ċ", "y"]),
        ("tail  ", ["tail", "ĠĠ"]),
    ],
)
def test_splits_words_as_qwen2_does(tmp_path: Path, text: str, words: list[str]) -> None:
    splitter = build(tmp_path).pre_tokenizer
    assert splitter is not None
    assert [word for word, _ in splitter.pre_tokenize_str(text)] == words


def test_decodes_bytes_and_control_tokens(tmp_path: Path) -> None:
    tokenizer = build(tmp_path)
    ids = tokenizer.encode("<|im_start|>user\n你好 é<|im_end|>").ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>user\n你好 é<|im_end|>"


def test_the_byte_alphabet() -> None:
    assert len(byte_letters()) == 256
    assert set(byte_letters()) == set(byte_alphabet())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokenizer__ggml__pre": "qwen35"}, "'qwen35'"),
        ({"tokenizer__ggml__pre": None}, "'gpt2'"),
        ({"tokenizer__ggml__model": "llama"}, "tokenizer"),
        ({"tokenizer__ggml__model": None, "tokenizer__ggml__pre": None}, "'none'"),
        ({"tokenizer__ggml__tokens": None}, "differ in length"),
        ({"tokenizer__ggml__token_type": KINDS[:-1]}, "differ in length"),
        ({"tokenizer__ggml__token_type": [*KINDS[:-1], 6]}, "unexpected type 6"),
        ({"tokenizer__ggml__tokens": [*TOKENS[:-1], "hello"]}, "twice"),
        ({"tokenizer__ggml__tokens": [*TOKENS[:-1], ""]}, "empty token"),
        ({"tokenizer__ggml__token_type": [3, *KINDS[1:]]}, "lacks a token for some bytes"),
        (
            {
                "tokenizer__ggml__tokens": [*TOKENS, "x" * 129],
                "tokenizer__ggml__token_type": [*KINDS, 1],
            },
            "more than 128 bytes",
        ),
        ({"tokenizer__ggml__merges": ["a"]}, "not pairs"),
        ({"tokenizer__ggml__merges": ["a b c"]}, "not pairs"),
        ({"tokenizer__ggml__merges": ["q x"]}, "does not load"),
    ],
)
def test_refuses(
    tmp_path: Path, changes: dict[str, str | list[str] | list[int] | None], named: str
) -> None:
    with pytest.raises(StartupError, match=named) as caught:
        build(tmp_path, **changes)
    assert caught.value.fix


def test_is_json_without_waste(tmp_path: Path) -> None:
    raw = build_tokenizer(read_gguf(write_tiny_model(tmp_path / "m.gguf")))
    document = json.loads(raw)
    assert document["normalizer"] == {"type": "NFC"}
    assert len(raw) <= len(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
