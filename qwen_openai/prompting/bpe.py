"""Text to token ids and back, through a `tokenizer.json`; control tokens are a table beside it.

Encoding takes plain text only: it never makes a control token. Long texts are tokenised in pieces
without holding the interpreter's lock, and no further than a given limit. Knows no templates.
"""

import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from qwen_openai.errors import StartupError

# No token is longer, in any vocabulary: `models.tokenizer_file` sees to it. Qwen's longest are 128
# blanks.
MAX_TOKEN_BYTES = 128
# Up to here one call takes a millisecond or two, in which it holds the interpreter's lock.
_SHORT = 2048
_SEGMENT = 32_768
# Places where the Qwen2 pattern always starts anew and where normalisation joins nothing: behind a
# letter or digit, in front of a sign that is none. Both halves then tokenise as the whole does.
_SEAM = re.compile(
    r"(?<=[A-Za-z0-9\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff])"
    r"(?=[ \n,.;:!?\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f])"
)
# NFC makes no text shorter than a quarter of its UTF-8 bytes; a test proves it for all of Unicode.
NFC_SHRINK = 4


class TooLong(Exception):
    """A text has more tokens than the limit: at least ``at_least``, more were not counted."""

    def __init__(self, at_least: int) -> None:
        super().__init__(at_least)
        self.at_least = at_least


class Bpe:
    """A byte-level BPE and its control tokens. Safe to use from several threads at once."""

    def __init__(self, path: Path) -> None:
        """Load ``path``. Raises StartupError when it is missing or damaged."""
        try:
            self._full = Tokenizer.from_file(os.fspath(path))
        except Exception as exc:  # the library raises bare Exception, also for a missing file
            raise StartupError(
                f"The tokenizer file {path} cannot be loaded: {exc}.",
                fix="Pull the model again: the file is then made anew.",
            ) from exc
        # The same model without added tokens; shared, so it costs no second load.
        self._plain = Tokenizer(self._full.model)
        self._plain.normalizer = self._full.normalizer
        self._plain.pre_tokenizer = self._full.pre_tokenizer
        added = self._full.get_added_tokens_decoder()
        self.control = {token.content: number for number, token in added.items()}
        self.size = max(self._full.get_vocab_size(), *(number + 1 for number in added))
        _give_back_memory()

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """Return the ids of ``text``, in which nothing is a control token.

        With a ``limit``, raises TooLong as soon as there are more tokens than that.
        """
        if len(text) <= _SHORT:
            ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
            _check(len(ids), limit)
            return ids
        ids = []
        _check(self._at_least(text), limit)
        for segment in _segments(text):
            ids += self._plain.encode_batch_fast([segment], add_special_tokens=False)[0].ids
            _check(len(ids), limit)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, control tokens spelled out; broken UTF-8 becomes U+FFFD."""
        text: str = self._full.decode(ids, skip_special_tokens=False)
        return text

    @staticmethod
    def _at_least(text: str) -> int:
        """A number of tokens that ``text`` surely has, known without tokenising."""
        size = len(text) if text.isascii() else len(text.encode()) // NFC_SHRINK
        return size // MAX_TOKEN_BYTES


def _check(tokens: int, limit: int | None) -> None:
    if limit is not None and tokens > limit:
        raise TooLong(tokens)


def _segments(text: str) -> Iterator[str]:
    """Part a long text at seams, so that a limit is noticed before all of it is tokenised."""
    start = 0
    while start < len(text):
        seam = _SEAM.search(text, start + _SEGMENT)
        end = seam.start() if seam else len(text)
        yield text[start:end]
        start = end


def _give_back_memory() -> None:
    """Have glibc return what parsing the file took: 40 MB of a small process."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return  # another C library, or Windows: nothing to do
