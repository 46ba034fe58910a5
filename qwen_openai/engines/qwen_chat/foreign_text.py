"""Counting with somebody else's tokenizer, and pieces out of a growing text.

For `foreign`: a model object that says neither how long its prompt is nor how many tokens an answer
took. Pure but for the tokenizer's `encode`.
"""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from qwen_openai.core import Message
from qwen_openai.errors import InvalidRequest
from qwen_openai.prompting.bpe import TooLong
from qwen_openai.prompting.inert import refuse_surrogates
from qwen_openai.prompting.renderer import MessagesOnly, Tokenised

_DEFAULT_SYSTEM = Message("system", "You are a helpful assistant.")

# Where a piece of text can be tokenised apart from what stands before it: every Qwen tokenizer
# begins anew there, and no mark can still combine over it.
_SEAM = re.compile(r"(?<=\w)(?=[\s,.;:!?，。；：！？、])")
_LONG_TAIL = 512


class Tokenizer(Protocol):
    """What is needed of the tokenizer that goes with a chat model."""

    @property
    def encode(self) -> Callable[..., Sequence[int]]: ...


class PromptCounter(MessagesOnly):
    """A `PromptRenderer` for lengths: it counts the prompt that the original builds, and remembers
    in ``rendered`` the messages that it was last asked about. ``marks`` are the ids in front of a
    turn and behind it."""

    def __init__(self, tokenizer: Tokenizer, marks: tuple[int, int] = (0, 0)) -> None:
        self._tokenizer = tokenizer
        self.marks = marks
        self.rendered: Sequence[Message] = ()

    def render(self, messages: Sequence[Message], *, continue_final: bool = False) -> list[int]:
        return self._count(messages, None, {})

    def render_within(
        self,
        messages: Sequence[Message],
        limit: int,
        *,
        continue_final: bool = False,
        known: Tokenised | None = None,
    ) -> list[int]:
        return self._count(messages, limit, {} if known is None else known)

    def _count(self, messages: Sequence[Message], limit: int | None, known: Tokenised) -> list[int]:
        """A turn is its opening mark, role, line end, text and closing mark; a line end stands
        between turns, and the answer's turn is opened at the end."""
        self.rendered = messages
        opened, closed = self.marks
        turns = list(messages)
        if not turns or turns[0].role != "system":
            turns.insert(0, _DEFAULT_SYSTEM)
        ids: list[int] = []
        for turn in turns:
            ids += [opened, *self._encode(turn.role, known), *self._encode("\n", known)]
            ids += [*self._encode(turn.content, known), closed, *self._encode("\n", known)]
            if limit is not None and len(ids) > limit:
                raise TooLong(len(ids))
        ids += [opened, *self._encode("assistant", known), *self._encode("\n", known)]
        if limit is not None and len(ids) > limit:
            raise TooLong(len(ids))
        return ids

    def _encode(self, text: str, known: Tokenised) -> list[int]:
        if text not in known:
            refuse_surrogates(text)
            known[text] = list(encode_inert(self._tokenizer, text))
        return known[text]


def encode_inert(tokenizer: Tokenizer, text: str) -> Sequence[int]:
    """Token ids of a text whose control tokens mean nothing, where the tokenizer can be told so:
    the original's takes the arguments of tiktoken."""
    try:
        return tokenizer.encode(text, allowed_special=set(), disallowed_special=())
    except TypeError:
        return tokenizer.encode(text)


def turn_marks(tokenizer: Tokenizer) -> tuple[int, int]:
    """The ids of the control tokens around a turn. Raises InvalidRequest where they are no single
    tokens of this tokenizer."""
    ids = [list(tokenizer.encode(mark)) for mark in ("<|im_start|>", "<|im_end|>")]
    if any(len(each) != 1 for each in ids):
        raise InvalidRequest(
            "The tokenizer of this model object does not tell which ids its prompts have. Ask a"
            " model that is served by its name."
        )
    return ids[0][0], ids[1][0]


def token_bytes(tokenizer: Tokenizer, ids: Sequence[int]) -> list[bytes]:
    """The bytes of each token, of a tokenizer that tells them as the original's does: as bytes,
    and control tokens as text. Raises InvalidRequest of others, and for an id that is none."""
    convert = getattr(tokenizer, "convert_ids_to_tokens", None)
    if not callable(convert):
        raise InvalidRequest("The tokenizer of this model object does not tell its tokens' bytes.")
    raw: list[bytes] = []
    for number in ids:
        try:
            token = convert([number])[0]
        except (ArithmeticError, LookupError, TypeError, ValueError):
            token = None
        if isinstance(token, str) and token.startswith("<|") and token.endswith("|>"):
            token = token.encode()
        if not isinstance(token, bytes):
            raise InvalidRequest(
                f"{number} is no token of this model object, or its tokenizer does not tell the"
                " bytes of it.",
                param="tokens",
            )
        raw.append(token)
    return raw


def first_tokens(tokenizer: Tokenizer, text: str, limit: int) -> str:
    """Return the text of the first ``limit`` tokens, as far as the tokenizer can decode."""
    ids = encode_inert(tokenizer, text)
    decode = getattr(tokenizer, "decode", None)
    return str(decode(ids[:limit])) if len(ids) > limit and callable(decode) else text


class Pieces:
    """Growing texts to their new pieces. Whole code points only: what stands for an incomplete one
    at the end (U+FFFD) waits for the next text."""

    def __init__(self) -> None:
        self._sent = ""

    def feed(self, text: str) -> str:
        """Return what ``text`` adds. What was sent cannot be taken back: a text that differs from
        it goes on behind as many characters."""
        piece = text.rstrip("\ufffd")[len(self._sent) :]
        self._sent += piece
        return piece


class Tally:
    """Counts an answer's tokens as its pieces come, never more than ``limit``."""

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self._before = 0
        self._tail = ""
        self.total = 0

    def add(self, piece: str) -> int:
        """Return by how many tokens the answer has grown."""
        if not piece:
            return 0
        self._tail += piece
        count = self._before + len(encode_inert(self._tokenizer, self._tail))
        grown = max(min(count, self._limit) - self.total, 0)
        self.total += grown
        if len(self._tail) > _LONG_TAIL:
            self._cut()
        return grown

    def _cut(self) -> None:
        """Count what can change no more once and for all, so that a long answer stays cheap."""
        seams = [match.start() for match in _SEAM.finditer(self._tail)]
        if seams:
            done, self._tail = self._tail[: seams[-1]], self._tail[seams[-1] :]
            self._before += len(encode_inert(self._tokenizer, done))
