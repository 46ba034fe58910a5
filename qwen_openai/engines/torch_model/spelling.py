"""The tokens of an answer to its text, one at a time, and with what is told of each: its logprob,
its bytes, why it was the last.

Between what picks tokens and what makes events of them; knows a vocabulary, no model and no job.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

from qwen_openai.core import FinishReason, TokenLogprob
from qwen_openai.engines.sampling import Picked
from qwen_openai.engines.torch_model.detokenise import Detokeniser
from qwen_openai.prompting.bpe import Bpe


@dataclass(frozen=True, slots=True)
class Piece:
    """One step of an answer: a token and the text that it made whole. No token: a piece of the
    prompt was read. The last one of an answer has the reason why it ended. ``logprob`` is the
    token's, where it is asked for and the token is part of the answer."""

    token: int | None = None
    text: str = ""
    finish: FinishReason | None = None
    logprob: TokenLogprob | None = None


class Speller:
    """Spells one answer. Tokens in ``stop`` end it and have no text; ``max_tokens`` ends it too."""

    def __init__(self, bpe: Bpe, stop: frozenset[int], max_tokens: int) -> None:
        self._bpe = bpe
        self._stop = stop
        self._max_tokens = max_tokens
        self._detokeniser = Detokeniser(bpe)
        self.count = 0

    def feed(self, picked: Picked) -> Piece:
        """Return the piece of text that a token makes; nothing may follow one with a reason."""
        self.count += 1
        token = picked.token
        if token in self._stop:
            return Piece(token, self._detokeniser.flush(), "stop")
        text, logprob = self._detokeniser.feed(token), _logprob(picked, self._bpe)
        if self.count == self._max_tokens:
            return Piece(token, text + self._detokeniser.flush(), "length", logprob)
        return Piece(token, text, None, logprob)


def pieces(
    tokens: Generator[Picked | None, None, None], bpe: Bpe, stop: frozenset[int], max_tokens: int
) -> Generator[Piece, None, None]:
    """Spell an answer: ``tokens`` as the token loop yields them, None for a piece of the prompt.
    Closing this closes them."""
    speller = Speller(bpe, stop, max_tokens)
    with closing(tokens):
        for picked in tokens:
            yield Piece() if picked is None else speller.feed(picked)


def _logprob(picked: Picked, bpe: Bpe) -> TokenLogprob | None:
    """Spell what is told of a token. Together the tokens of an answer are its bytes: one that has
    no text there has none here. Among those that might have come every token is spelled."""
    if picked.logprob is None:
        return None
    raw = b"" if picked.token in bpe.special else bpe.piece(picked.token)
    top = tuple(_spelled(bpe.piece(token), logprob) for token, logprob in picked.top)
    return _spelled(raw, picked.logprob, top)


def _spelled(raw: bytes, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    return TokenLogprob(raw.decode("utf-8", "replace"), raw, logprob, top)
