"""GGUF metadata to a Hugging Face `tokenizer.json`: the byte-level BPE of the Qwen family.

Made once, when a model is pulled, so that serving needs neither transformers nor the GGUF parser.
It knows vocabularies, not models or prompts; `prompting` loads what is written here.

Sources: the `tokenizer.ggml.*` keys of ggml's docs/gguf.md; normaliser, pattern and added tokens as
in the tokenizer.json that Qwen publishes with Qwen2, Qwen2.5 and Qwen3 (llama.cpp leaves NFC out).
"""

from dataclasses import dataclass
from pathlib import Path

import orjson
from tokenizers import Tokenizer

from qwen_openai.errors import StartupError
from qwen_openai.models.gguf import GGUF, unusable
from qwen_openai.prompting.bpe import MAX_TOKEN_BYTES, byte_letters

# The pre-tokenisers we know exactly, by the name that GGUF files give them.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {"qwen2": QWEN2_PATTERN}
# Values of tokenizer.ggml.token_type.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A byte-level BPE. ``tokens`` are spelt in GPT-2's letters, one a byte; ``added`` are what no
    text makes; with ``ignore_merges`` a word that is a token is that token, merges or not."""

    tokens: dict[str, int]
    merges: list[list[str]]
    added: list[dict[str, object]]
    ignore_merges: bool = False


def build_tokenizer(gguf: GGUF) -> bytes:
    """Return the bytes of a `tokenizer.json`, proved to load.

    Raises StartupError when the model's tokenizer is not one of those we know, or is inconsistent.
    """
    pattern = _pattern(gguf)
    tokens, added = _tokens(gguf)
    return tokenizer_document(Vocabulary(tokens, _merges(gguf), added), pattern, gguf.path)


def tokenizer_document(vocabulary: Vocabulary, pattern: str, source: Path) -> bytes:
    """Return the bytes of a `tokenizer.json`, proved to load; ``source`` is named if it does not.

    Raises StartupError.
    """
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _byte_level(),
            ],
        },
        "post_processor": None,
        "decoder": _byte_level(),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": vocabulary.ignore_merges,
            "vocab": vocabulary.tokens,
            "merges": vocabulary.merges,
        },
    }
    raw = orjson.dumps(document)
    try:
        Tokenizer.from_buffer(raw)
    except Exception as exc:  # the library raises bare Exception for a bad file
        raise StartupError(
            f"{source} cannot be used: its tokenizer does not load ({exc}).",
            fix="Fetch the model again, or name another.",
        ) from exc
    return raw


def _pattern(gguf: GGUF) -> str:
    model = gguf.text("tokenizer.ggml.model")
    pre = gguf.text("tokenizer.ggml.pre")
    if model != "gpt2" or pre not in _PATTERNS:
        known = ", ".join(sorted(_PATTERNS))
        raise StartupError(
            f"{gguf.path} uses the tokenizer {pre or model or 'none'!r}, which this version does"
            f" not know (it knows: {known}).",
            fix="Use a Qwen1.5, Qwen2, Qwen2.5 or Qwen3 model.",
        )
    return _PATTERNS[pre]


def _tokens(gguf: GGUF) -> tuple[dict[str, int], list[dict[str, object]]]:
    """Part the vocabulary into what BPE may form and what only a template may write."""
    tokens = gguf.strings("tokenizer.ggml.tokens")
    kinds = gguf.numbers("tokenizer.ggml.token_type")
    if not tokens or len(kinds) != len(tokens):
        raise unusable(gguf.path, "its token list and its token types differ in length")
    if len(set(tokens)) != len(tokens) or not all(tokens):
        raise unusable(gguf.path, "its vocabulary has an empty token or one token twice")
    vocabulary: dict[str, int] = {}
    added: list[dict[str, object]] = []
    for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind == _NORMAL:
            vocabulary[token] = number
        elif kind in (_UNKNOWN, _CONTROL, _USER_DEFINED):
            added.append(added_token(number, token, special=kind != _USER_DEFINED))
        elif kind != _UNUSED:
            raise unusable(gguf.path, f"its token {number} has the unexpected type {kind}")
    # BPE drops a byte that has no token, without a word: text would be lost.
    if not vocabulary.keys() >= set(byte_letters()):
        raise unusable(gguf.path, "its vocabulary lacks a token for some bytes")
    # In a byte-level token each letter is one byte.
    if max(map(len, vocabulary)) > MAX_TOKEN_BYTES:
        raise unusable(gguf.path, f"it has a token of more than {MAX_TOKEN_BYTES} bytes")
    return vocabulary, added


def _merges(gguf: GGUF) -> list[list[str]]:
    merges = [merge.split(" ") for merge in gguf.strings("tokenizer.ggml.merges")]
    if any(len(merge) != 2 for merge in merges):
        raise unusable(gguf.path, "its merges are not pairs of tokens")
    return merges


def added_token(number: int, token: str, *, special: bool) -> dict[str, object]:
    """Return an entry of a `tokenizer.json`'s added tokens; ``number`` is the token's id."""
    return {
        "id": number,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _byte_level() -> dict[str, object]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
