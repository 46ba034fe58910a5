"""Events to the bodies and chunks of completions: sole owner of their shape.

Knows OpenAI's wire (specification 2.3.0: CreateCompletionResponse, which whole answers and chunks
share), no HTTP. Choices go out as prompt * n + j, whatever number was made of each prompt.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_openai.core import Event, Finish, FinishReason, Text, TokenLogprob
from qwen_openai.errors import EngineFailed
from qwen_openai.responses.extras import with_members
from qwen_openai.responses.fold import Fold, FoldedChoice
from qwen_openai.responses.wire import DataEvents, logprob_of, usage_object


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller wants to see. ``n`` choices of each prompt, those with the best mean log
    probability where more were made. ``echoes`` are the prompts' texts, each in front of its
    choices, or empty. ``logprobs`` None asks for none."""

    n: int = 1
    echoes: Sequence[str] = ()
    logprobs: int | None = None
    include_usage: bool = False


class CompletionReply(DataEvents):
    """One request's identity on the wire: the same id, time and model in all its chunks."""

    def __init__(
        self, *, id: str, model: str, created: int, system_fingerprint: str, wanted: Wanted
    ) -> None:
        """`created` is Unix time in seconds."""
        super().__init__()
        self._head = {
            "id": id,
            "object": "text_completion",
            "created": created,
            "model": model,
            "system_fingerprint": system_fingerprint,
        }
        self._wanted = wanted
        self._offsets: dict[int, _Offsets] = {}

    def opening(self) -> list[dict[str, object]]:
        """Return the chunks with the echoed prompts."""
        n = self._wanted.n
        return [
            self._chunk(prompt * n + choice, text)
            for prompt, text in enumerate(self._wanted.echoes)
            for choice in range(n)
        ]

    def own_chunks(self, event: Event) -> list[dict[str, object]]:
        if isinstance(event, Finish):
            return [self._chunk(event.index, "", reason=event.reason)]
        if not isinstance(event, Text):
            return []
        logprobs = None
        if self._wanted.logprobs is not None and event.logprobs:
            offsets = self._offsets.setdefault(event.index, _Offsets())
            logprobs = self._logprobs(event.logprobs, offsets)
        if not event.text and logprobs is None:
            return []
        return [self._chunk(event.index, event.text, logprobs)]

    def closing(self, fold: Fold) -> list[dict[str, object]]:
        """Return what comes after the last choice: the usage chunk, if it was asked for."""
        if not self._wanted.include_usage:
            return []
        return [self._with_usage([], with_members(usage_object(fold.usage), fold.extra.usage))]

    def body(self, fold: Fold) -> dict[str, object]:
        """Return the plain answer. Raises EngineFailed if a choice never finished."""
        choices = [
            self._whole(prompt, choice)
            for prompt in range(fold.prompts)
            for choice in _best(fold.of_prompt(prompt), self._wanted.n)
        ]
        numbered = [{**choice, "index": index} for index, choice in enumerate(choices)]
        extra = fold.extra
        usage = with_members(usage_object(fold.usage), extra.usage)
        return {**self._head, "choices": numbered, "usage": usage, **extra.body}

    def _whole(self, prompt: int, choice: FoldedChoice) -> dict[str, object]:
        if choice.reason is None:
            raise EngineFailed("The engine stopped before the answer was finished; try again.")
        echo = self._wanted.echoes[prompt] if self._wanted.echoes else ""
        wanted = self._wanted.logprobs is not None
        return {
            "text": echo + choice.text,
            "index": 0,
            "logprobs": self._logprobs(choice.logprobs, _Offsets()) if wanted else None,
            "finish_reason": choice.reason,
            **({} if choice.extra is None else choice.extra.choice),
        }

    def _logprobs(self, tokens: Sequence[TokenLogprob], offsets: "_Offsets") -> dict[str, object]:
        most = self._wanted.logprobs or 0
        return {
            "tokens": [_spelling(token) for token in tokens],
            "token_logprobs": [logprob_of(token) for token in tokens],
            "top_logprobs": [
                {_spelling(each): logprob_of(each) for each in (*token.top[:most], token)}
                for token in tokens
            ],
            "text_offset": [offsets.take(token) for token in tokens],
        }

    def _chunk(
        self,
        index: int,
        text: str,
        logprobs: dict[str, object] | None = None,
        *,
        reason: FinishReason | None = None,
    ) -> dict[str, object]:
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}
        return self._with_usage([choice], None)

    def _with_usage(
        self, choices: list[dict[str, object]], usage: dict[str, object] | None
    ) -> dict[str, object]:
        chunk: dict[str, object] = {**self._head, "choices": choices}
        if self._wanted.include_usage:
            chunk["usage"] = usage
        return chunk


class _Offsets:
    """Where each token of a choice begins in its text, in characters. A token that goes on with a
    character begins where that does."""

    __slots__ = ("_characters", "_decoder")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def take(self, token: TokenLogprob) -> int:
        place = self._characters
        self._characters += len(self._decoder.decode(token.raw))
        return place


def _spelling(token: TokenLogprob) -> str:
    """Return a token as this old shape writes it, where texts are keys and so must differ: what is
    no whole text goes as OpenAI's `bytes:` form."""
    try:
        return token.raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.raw)


def _best(choices: Sequence[FoldedChoice], n: int) -> Sequence[FoldedChoice]:
    """Return ``n`` choices: the best first where there are more, else all as they are."""
    if len(choices) <= n:
        return choices
    return sorted(choices, key=_mean_logprob, reverse=True)[:n]


def _mean_logprob(choice: FoldedChoice) -> float:
    """An answer of no tokens is as sure as can be: it is one that ended at once."""
    tokens = choice.logprobs
    return sum(map(logprob_of, tokens)) / len(tokens) if tokens else 0.0
