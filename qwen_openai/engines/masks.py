"""Which tokens may come next in an answer that is held to a grammar: llguidance over a vocabulary.

Tokens are their bytes: those that the vocabulary marks as special never stand for text, all others
do, `<tool_call>` and `</think>` included. (llguidance's own reader of `tokenizer.json` takes every
added token for a special one.) Knows ids and grammars; no tensors, no jobs. Blocking.
"""

import re
from collections.abc import Collection, Sequence

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from qwen_openai.errors import EngineFailed
from qwen_openai.prompting.bpe import Bpe

# Of a rule with long counted repetitions, llguidance's own limits do not let one mask of a whole
# vocabulary be made. At some 14,000 of its steps a millisecond, a mask takes less than half a
# second still, which is far from a model that hangs.
_STEP_FUEL, _STEP_ITEMS = 5_000_000, 100_000
_FUEL, _STATES, _SYMBOLS = 2_000_000, 250_000, 1_000_000
# What llguidance writes into a mask for a token that may come next.
_MAY = b"\xc8"


class TokenMasks:
    """A vocabulary, ready for grammars. Making one takes a second, in which it holds the
    interpreter's lock, and some 80 MB of a Qwen's vocabulary. Several threads may use one at once.
    """

    def __init__(self, bpe: Bpe, vocab_size: int, eos: Collection[int]) -> None:
        """``vocab_size`` is the length of a row of logits, of which ids that stand for nothing are
        never allowed. ``eos`` are the ids that end an answer. Raises EngineFailed without any."""
        ends = sorted(token for token in eos if 0 <= token < vocab_size)
        if not ends:
            raise EngineFailed(
                "The model has no token that ends an answer, so no answer of it can be held to a"
                " grammar. Leave response_format, structured_outputs and forced tools out."
            )
        wrapper = TokenizerWrapper(_Vocabulary(bpe, vocab_size, ends[0]))
        self._tokenizer = LLTokenizer(wrapper, n_vocab=vocab_size, eos_token=ends)
        self._limits = LLParserLimits(
            initial_lexer_fuel=_FUEL,
            step_lexer_fuel=_STEP_FUEL,
            step_max_items=_STEP_ITEMS,
            max_lexer_states=_STATES,
            max_grammar_size=_SYMBOLS,
            verbose_errors=False,
        )

    def encode(self, raw: bytes) -> list[int]:
        """Return ids of exactly ``raw``, as the model would write it."""
        return self._tokenizer.tokenize_bytes(raw)

    def start(self, grammar: str) -> "TokenMask":
        """Begin an answer held to ``grammar``, complete as `grammars.build.whole` makes it.

        Raises EngineFailed when it cannot be used, which `grammars.check` has found out before.
        """
        return TokenMask(LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits))


class TokenMask:
    """Where one answer is in its grammar. For one thread at a time; useless after EngineFailed."""

    __slots__ = ("_matcher",)

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._check()

    def allowed(self) -> bytes:
        """Return a byte for each id of a row of logits, not 0 where the token may come next: at
        least one.

        Ids that end the answer are allowed exactly where the grammar may end, and alone where it
        must. Raises EngineFailed when that cannot be told.
        """
        mask = self._matcher.compute_logit_bias()
        # A matcher in trouble allows the answer to end.
        self._check()
        if _MAY not in mask:
            raise _failed("it allows no token here")
        return mask

    def take(self, token: int) -> None:
        """The answer goes on with ``token``. Raises EngineFailed when that was not allowed."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _failed(self._matcher.get_error())


def _failed(reason: str) -> EngineFailed:
    # llguidance writes the grammar behind the first line, and that is the caller's.
    line = reason.strip().partition("\n")[0][:200].rstrip(".")
    return EngineFailed(
        f"The answer could not be held to its grammar: {line}. Ask for a simpler one, or send the"
        " request again."
    )


class _Vocabulary:
    """A `Bpe` as llguidance asks for one. Must not raise: that would end the process."""

    def __init__(self, bpe: Bpe, vocab_size: int, eos: int) -> None:
        self.eos_token_id = eos
        self.bos_token_id: int | None = None
        self.tokens: Sequence[bytes] = [bpe.piece(number) for number in range(vocab_size)]
        self.special_token_ids = sorted(n for n in bpe.special if n < vocab_size)
        self._bpe = bpe
        text = {
            token: n for token, n in bpe.control.items() if n < vocab_size and n not in bpe.special
        }
        self._text_tokens = text
        longest_first = sorted(text, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
        self._bytes = {piece[0]: n for n, piece in enumerate(self.tokens) if len(piece) == 1}

    def __call__(self, raw: bytes) -> list[int]:
        """Return ids of exactly ``raw``: the way in which the model would write it, if any."""
        ids: list[int] = []
        for part in self._split.split(raw.decode("utf-8", "replace")):
            token = self._text_tokens.get(part)
            ids += self._bpe.encode(part) if token is None else [token]
        # The vocabulary may normalise what it encodes.
        if all(n < len(self.tokens) for n in ids) and b"".join(map(self._piece, ids)) == raw:
            return ids
        return [self._bytes[byte] for byte in raw if byte in self._bytes]

    def _piece(self, number: int) -> bytes:
        return self.tokens[number]
