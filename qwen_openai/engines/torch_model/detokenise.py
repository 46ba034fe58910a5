"""Token ids to text, one at a time, byte for byte what decoding all of them at once gives.

A token is bytes, not characters: what is no whole character yet is held back. Knows a vocabulary
and nothing else.
"""

import codecs

from qwen_openai.prompting.bpe import Bpe


class Detokeniser:
    """The text of one answer. Tokens that the vocabulary marks as special have none."""

    __slots__ = ("_bpe", "_decoder")

    def __init__(self, bpe: Bpe) -> None:
        self._bpe = bpe
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """Take the next id and return the text that is now whole, perhaps none."""
        if token in self._bpe.special:
            return ""
        return self._decoder.decode(self._bpe.piece(token))

    def flush(self) -> str:
        """Return what is held back, U+FFFD for a character that was not completed."""
        return self._decoder.decode(b"", final=True)
