"""`qwen.tiktoken`, the vocabulary of the first Qwen generation, to a Hugging Face `tokenizer.json`.

The file holds a token a line, in base64, with its rank, which is its id. A `tokenizer.json` wants
the merges that made each token; they are found by merging the token's own bytes by rank. Proved on
ids that Qwen-1's own tokenizer made. Needs neither tiktoken nor transformers.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from qwen_openai.errors import StartupError
from qwen_openai.models.document import AGAIN
from qwen_openai.models.tokenizer_file import (
    QWEN2_PATTERN,
    Vocabulary,
    added_token,
    tokenizer_document,
)
from qwen_openai.prompting.bpe import MAX_TOKEN_BYTES, byte_letters

VOCABULARY_FILE = "qwen.tiktoken"
# How many tokens each published one has; the ids of the control tokens hang on it.
RANKS = 151_643

# What follows the ranks, in this order: Qwen-1's control tokens, none of which text can make.
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|extra_{number}|>" for number in range(205)),
)
_MOST_BYTES = 64 * 2**20


def build_from_tiktoken(path: Path, expected: int | None = None) -> bytes:
    """Return the bytes of the `tokenizer.json` that says the same as the ranks in ``path``.

    ``expected`` is how many ranks there must be; None: any number. Raises StartupError when the
    file cannot be read or is not a whole set of ranks.
    """
    ranks = _read(path)
    # One that was cut at a line end is a sound vocabulary of another model.
    if expected is not None and len(ranks) != expected:
        raise _bad(path, f"it has {len(ranks)} tokens, and a Qwen-1's has {expected}")
    letters = dict(enumerate(byte_letters()))

    def spelt(token: bytes) -> str:
        return token.decode("latin-1").translate(letters)

    vocabulary = Vocabulary(
        tokens={spelt(token): rank for token, rank in ranks.items()},
        merges=[[spelt(left), spelt(right)] for left, right in _merges(ranks)],
        added=[
            added_token(len(ranks) + number, token, special=True)
            for number, token in enumerate(CONTROL_TOKENS)
        ],
        # tiktoken takes a word that is a token at once, whatever merges would make of it.
        ignore_merges=True,
    )
    return tokenizer_document(vocabulary, QWEN2_PATTERN, path)


def _read(path: Path) -> dict[bytes, int]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _bad(path, "it is larger than any vocabulary")
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise StartupError(f"{path} cannot be read: {exc.strerror or exc}.", fix=AGAIN) from exc
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(line for line in lines if line):
        word, _, rank = line.partition(b" ")
        try:
            token = base64.b64decode(word, validate=True)
        except binascii.Error:
            token = b""
        if not 0 < len(token) <= MAX_TOKEN_BYTES or rank != str(number).encode():
            raise _bad(path, f"its line {number + 1} is not a token with the rank {number}")
        ranks[token] = number
    if len(ranks) != sum(1 for line in lines if line):
        raise _bad(path, "it has one token twice")
    # Text is bytes: a byte without a token would be lost without a word.
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise _bad(path, "it lacks a token for some bytes")
    return ranks


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield for each token the pair that merging by rank joins last, in the order of the ranks.

    A token that merging its own bytes does not make (there is none in Qwen's file) has no pair.
    """
    for token, rank in ranks.items():
        if len(token) > 1:
            parts = _merged(token, rank, ranks)
            if len(parts) == 2:
                yield parts[0], parts[1]


def _merged(token: bytes, limit: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Merge the bytes of ``token``, lowest rank first, the leftmost of equals, below ``limit``."""
    parts = [token[i : i + 1] for i in range(len(token))]
    pairs = [ranks.get(a + b, limit) for a, b in pairwise(parts)]
    while pairs and (lowest := min(pairs)) < limit:
        at = pairs.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del pairs[at]
        if at:
            pairs[at - 1] = ranks.get(parts[at - 1] + parts[at], limit)
        if at < len(pairs):
            pairs[at] = ranks.get(parts[at] + parts[at + 1], limit)
    return parts


def _bad(path: Path, reason: str) -> StartupError:
    return StartupError(f"{path} cannot be used: {reason}.", fix=AGAIN)
