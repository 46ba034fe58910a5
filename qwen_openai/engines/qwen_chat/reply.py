"""An answer of QwenChat: whole, or while it grows; with what the original did not tell about it.

A whole answer is the end of a growing one: there is one way to make both.
"""

from collections.abc import Generator, Iterator

from qwen_openai.core import FinishReason
from qwen_openai.engines.torch_model.spelling import Piece
from qwen_openai.parsing.stops import StopStrings


class Reply(str):
    """The text of an answer, and how it came about.

    ``finish_reason`` is "stop" or "length". ``completion_tokens`` counts all tokens that were
    generated, ``token_ids`` are those, a stop token and the tokens of a stop word included.
    ``dropped_pairs`` of the history were left out of the prompt, the oldest.
    """

    __slots__ = (
        "completion_tokens",
        "dropped_pairs",
        "finish_reason",
        "prompt_tokens",
        "token_ids",
    )

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    token_ids: tuple[int, ...]
    dropped_pairs: int


class ReplyStream(Iterator[str]):
    """The text of an answer as it grows: each value is all of it so far.

    A value for each token, perhaps the same as the one before, and at least one; the last value is
    what `chat` returns. The attributes are those of Reply, so far; ``finish_reason`` is None until
    the end. `close` ends the answer at once and frees its memory, as does the end of a `with`.
    """

    def __init__(
        self,
        steps: Generator[Piece, None, None],
        stop_words: tuple[str, ...],
        *,
        prompt_tokens: int,
        dropped_pairs: int,
    ) -> None:
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self.prompt_tokens = prompt_tokens
        self.dropped_pairs = dropped_pairs
        self._tokens: list[int] = []
        self._steps = steps
        self._stops = StopStrings(stop_words)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(self._tokens)

    @property
    def completion_tokens(self) -> int:
        return len(self._tokens)

    def __next__(self) -> str:
        for piece in self._steps:
            if piece.token is None:
                continue
            self._tokens.append(piece.token)
            before = self.text
            self._grow(piece)
            if piece.finish is None or self.text != before or len(self._tokens) == 1:
                return self.text
        raise StopIteration

    def _grow(self, piece: Piece) -> None:
        self.text += self._stops.feed(piece.text)
        self.finish_reason = piece.finish
        if self._stops.matched:
            self.finish_reason = "stop"
            self.close()
        elif piece.finish is not None:
            self.text += self._stops.flush()

    def close(self) -> None:
        self._steps.close()

    def __enter__(self) -> "ReplyStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def drain(self) -> Reply:
        """Run to the end and return the whole answer."""
        for _ in self:
            pass
        if self.finish_reason is None:
            raise ValueError("The stream was closed before the answer was complete.")
        reply = Reply(self.text)
        reply.finish_reason = self.finish_reason
        reply.prompt_tokens = self.prompt_tokens
        reply.completion_tokens = self.completion_tokens
        reply.token_ids = self.token_ids
        reply.dropped_pairs = self.dropped_pairs
        return reply
