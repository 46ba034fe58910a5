"""`qwen.tiktoken` as a tokenizer: the ids of Qwen-1's own, and files that are none."""

import json
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe
from tokenizers import Tokenizer, normalizers

from qwen_openai.errors import StartupError
from qwen_openai.models.tiktoken_file import CONTROL_TOKENS, RANKS, build_from_tiktoken
from qwen_openai.models.tokenizer_file import QWEN2_PATTERN
from tests.models.qwen1 import tiny_qwen1


@pytest.fixture(scope="module")
def document(shared: Path) -> str:
    path = shared / "golden/qwen1/checkpoint/qwen.tiktoken"
    return build_from_tiktoken(path, RANKS).decode()


def _plain(full: Tokenizer) -> Tokenizer:
    """The same, with its control tokens out of reach of text."""
    plain = Tokenizer(full.model)
    plain.normalizer, plain.pre_tokenizer = full.normalizer, full.pre_tokenizer
    plain.decoder = full.decoder
    return plain


@pytest.mark.parametrize("ignore_merges", [True, False])
def test_the_golden_rows(shared: Path, document: str, ignore_merges: bool) -> None:
    """Programs that rebuild the tokenizer lose ignore_merges: no id may hang on it."""
    stated = json.loads(document)
    assert stated["model"]["ignore_merges"] is True
    stated["model"]["ignore_merges"] = ignore_merges
    full = Tokenizer.from_str(json.dumps(stated))
    plain = _plain(full)
    rows = (shared / "golden/qwen1/tokens.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 600
    for row in map(json.loads, rows):
        assert plain.encode(row["text"]).ids == row["ids"]
        assert full.encode(row["text"]).ids == row["ids_with_control_tokens"]


def test_the_control_tokens(document: str) -> None:
    full = Tokenizer.from_str(document)
    assert [full.token_to_id(token) for token in CONTROL_TOKENS] == list(range(151643, 151851))
    assert full.get_vocab_size() == 151851


def test_merges_alone_make_every_token(shared: Path, document: str) -> None:
    """So ignoring them changes nothing; each token has exactly one merge."""
    model = json.loads(document)["model"]
    assert len(model["merges"]) == len(model["vocab"]) - 256
    joined = [left + right for left, right in model["merges"]]
    assert joined == sorted(joined, key=model["vocab"].__getitem__)
    assert len(set(joined)) == len(joined)


@settings(max_examples=300)
@given(text=st.text(max_size=200))
def test_any_text_has_the_ids_that_tiktoken_gives(
    text: str, reference: tiktoken.Encoding, plain: Tokenizer
) -> None:
    normal = normalizers.NFC().normalize_str(text)
    assert plain.encode(text).ids == reference.encode_ordinary(normal)
    assert plain.decode(plain.encode(text).ids) == normal


@pytest.fixture(scope="module")
def plain(document: str) -> Tokenizer:
    return _plain(Tokenizer.from_str(document))


@pytest.fixture(scope="module")
def reference(shared: Path) -> tiktoken.Encoding:
    ranks = load_tiktoken_bpe(str(shared / "golden/qwen1/checkpoint/qwen.tiktoken"))
    return tiktoken.Encoding(
        "qwen", pat_str=QWEN2_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )


def test_a_token_that_merges_do_not_make_is_found_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(tiny_qwen1.tiktoken(merges=(b"xyz", b"ab")))
    tokenizer = Tokenizer.from_str(build_from_tiktoken(path).decode())
    assert tokenizer.encode("xyz").ids == [256]
    assert tokenizer.encode("abx").ids == [257, ord("x")]


_WHOLE = tiny_qwen1.tiktoken()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "lacks a token"),
        (_WHOLE[10:], "its line 1 "),
        (_WHOLE.replace(b" 7\n", b" 8\n", 1), "its line 8 "),
        (_WHOLE.replace(b" 7\n", b"\n", 1), "its line 8 "),
        (_WHOLE + b"YWI= 259\n", "twice"),
        (_WHOLE + b"!!!! 259\n", "its line 260 "),
        (_WHOLE + b"QUFB" * 100 + b" 259\n", "its line 260 "),
        (b"version https://git-lfs.github.com/spec/v1\n", "its line 1 "),
    ],
)
def test_a_file_that_is_no_vocabulary(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(content)
    with pytest.raises(StartupError, match=reason):
        build_from_tiktoken(path)


def test_a_file_of_another_length(tmp_path: Path) -> None:
    """Cut at a line end it is sound, and every control token has another id."""
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(_WHOLE)
    assert build_from_tiktoken(path) == build_from_tiktoken(path, tiny_qwen1.RANKS)
    with pytest.raises(
        StartupError, match=r"has 259 tokens, and a Qwen-1's has 151643\.$"
    ) as caught:
        build_from_tiktoken(path, RANKS)
    assert "again" in caught.value.fix


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read"):
        build_from_tiktoken(tmp_path / "qwen.tiktoken")
