"""Text to token ids and back, through a `tokenizer.json`; control tokens are a table beside it.

Encoding takes plain text only: it never makes a control token. Long texts are tokenised in pieces
without holding the interpreter's lock, and no further than a given limit. Knows no templates.
"""

import ctypes
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from qwen_openai.errors import InvalidRequest, StartupError

# No token is longer, in any vocabulary: `models.tokenizer_file` sees to it. Qwen's longest are 128
# blanks.
MAX_TOKEN_BYTES = 128
# Up to here one call takes a millisecond or two, in which it holds the interpreter's lock.
_SHORT = 2048
_SEGMENT = 32_768
# Places where the Qwen2 pattern always starts anew and where normalisation joins nothing: behind a
# letter, in front of a sign that is none; behind a digit. Both halves then tokenise as the whole
# does.
_SEAM = re.compile(
    r"(?<=[A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff])"
    r"(?=[ \n,.;:!?\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f])"
    r"|(?<=[0-9])(?=[ -~\n])"
)
# Cut elsewhere, a text may have a few tokens more than whole, at each cut. Twice as many, with cuts
# this far apart, no vocabulary makes of it.
_CUT_MARGIN = 2
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
        self._added = {number: token.content.encode() for number, token in added.items()}
        longest_first = sorted(self.control, key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self.special = frozenset(number for number, token in added.items() if token.special)
        self._bytes = {letter: byte for byte, letter in enumerate(byte_letters())}
        self.size = max(self._full.get_vocab_size(), *(number + 1 for number in added))
        _give_back_memory()

    def encode(self, text: str, limit: int | None = None, *, control: bool = False) -> list[int]:
        """Return the ids of ``text``, in which nothing is a control token unless ``control``.

        With a ``limit``, raises TooLong as soon as there are more tokens than that.
        """
        return self._marked(text, limit) if control else self._encode(text, limit)

    def _marked(self, text: str, limit: int | None) -> list[int]:
        ids: list[int] = []
        # An empty pattern, of a vocabulary without control tokens, splits nothing off.
        for n, piece in enumerate(self._control.split(text) if self.control else [text]):
            if n % 2:
                ids.append(self.control[piece])
            elif piece:
                try:
                    ids += self._encode(piece, None if limit is None else limit - len(ids))
                except TooLong as exc:
                    raise TooLong(len(ids) + exc.at_least) from None
            _check(len(ids), limit)
        return ids

    def _encode(self, text: str, limit: int | None) -> list[int]:
        if len(text) <= _SHORT:
            ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
            _check(len(ids), limit)
            return ids
        ids = []
        _check(self._at_least(text), limit)
        for segment in _segments(text):
            if limit is not None and len(segment) > 2 * _SEGMENT:
                self._refuse_early(segment, limit - len(ids))
            ids += self._unlocked(segment)
            _check(len(ids), limit)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, control tokens spelled out; broken UTF-8 becomes U+FFFD."""
        text: str = self._full.decode(ids, skip_special_tokens=False)
        return text

    def piece(self, number: int) -> bytes:
        """Return the bytes that one id stands for, none for an id that stands for no text.

        A token's bytes need be no whole characters. A control token's are its spelling.
        """
        if number in self._added:
            return self._added[number]
        letters = self._full.id_to_token(number) if number >= 0 else None
        return b"" if letters is None else bytes(map(self._bytes.__getitem__, letters))

    def has(self, number: int) -> bool:
        """Tell whether ``number`` is the id of a token."""
        # The library takes ids of 32 bits without a sign.
        return 0 <= number < self.size and self._full.id_to_token(number) is not None

    def bytes_of(self, number: int) -> bytes:
        """As `piece`, but raises InvalidRequest for an id that is none."""
        if not self.has(number):
            raise InvalidRequest(
                f"This model's vocabulary has no token {number}: its ids go from 0 to"
                f" {self.size - 1}.",
                param="tokens",
            )
        return self.piece(number)

    def _unlocked(self, text: str) -> list[int]:
        # Of the library's calls only those on batches let other threads run meanwhile.
        ids: list[int] = self._plain.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def _refuse_early(self, text: str, limit: int) -> None:
        """Raise TooLong for a text without seams that is far above ``limit``, at bounded cost.

        Tokenising megabytes of it at once would take seconds and hundreds of megabytes.
        """
        tokens = 0
        for start in range(0, len(text), _SEGMENT):
            tokens += len(self._unlocked(text[start : start + _SEGMENT]))
            _check(tokens // _CUT_MARGIN, limit)

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
        end = _seam(text, start + _SEGMENT)
        yield text[start:end]
        start = end


def _seam(text: str, start: int) -> int:
    """Return the first seam from ``start`` on, or the end of the text."""
    # One search through megabytes would hold the interpreter's lock for all of it.
    for window in range(start, len(text), _SHORT):
        if seam := _SEAM.search(text, window, window + _SHORT):
            return seam.start()
    return len(text)


def byte_letters() -> tuple[str, ...]:
    """Return the letter of each byte, from 0 on, in a byte-level vocabulary (GPT-2's alphabet):
    itself where that is a visible Latin-1 character, else the next from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return tuple(chr(byte if byte in visible else next(others)) for byte in range(256))


def _give_back_memory() -> None:
    """Have glibc return what parsing the file took: 40 MB of a small process."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return  # another C library, or Windows: nothing to do
