"""llama.cpp's chunks as Events. Pure: no I/O.

What the fields are was read off xllamacpp 2026.10 and is in docs/engines.md. It knows no jobs and
no prompts; `requests` asks for the chunks, `engine` brings them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict

import orjson

from qwen_openai.core import Event, Finish, FinishReason, Started, Text, TokenLogprob
from qwen_openai.errors import ApiError, ContextLengthExceeded, EngineFailed

# What OpenAI's specification says of a token that is out of the question; llama.cpp says it with
# the lowest number of its kind.
_IMPOSSIBLE = -9999.0
_MISREAD = (LookupError, TypeError, ValueError, AttributeError)


class _Choice(TypedDict):
    text: str
    finish_reason: str | None


class _Probability(TypedDict, total=False):
    id: int
    bytes: list[int]
    logprob: float
    top_logprobs: "list[_Probability]"


class _Verbose(TypedDict, total=False):
    tokens: list[int]
    tokens_predicted: int
    completion_probabilities: list[_Probability]


class _Progress(TypedDict):
    cache: int


class _CachedTokens(TypedDict):
    cached_tokens: int


class _Usage(TypedDict):
    completion_tokens: int
    prompt_tokens_details: _CachedTokens


class _Error(TypedDict, total=False):
    code: int
    message: str
    type: str


# Not as a class, which would mangle the name with two underscores.
_Chunk = TypedDict(
    "_Chunk",
    {
        "choices": list[_Choice],
        "prompt_progress": _Progress,
        "usage": _Usage,
        "error": _Error,
        "__verbose": _Verbose,
    },
    total=False,
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a translator must know of its request.

    ``stop_ids`` end the answer, and their text is no part of it. ``logprobs`` is how many
    alternatives a token gets, None for no logprobs at all; ``piece`` gives the bytes of an id.
    """

    started: Started
    stop_ids: frozenset[int]
    logprobs: int | None
    piece: Callable[[int], bytes]


class Translator:
    """Chunks of one request in, its events out: one Started, Texts, one Finish.

    ``done`` turns true with the Finish; ``ended`` tells whether llama.cpp ended the answer itself,
    else it still generates and must be cancelled. ``ids`` are the tokens of the last Text, or the
    one that was a stop, as far as llama.cpp names them: of a character only the last.
    """

    __slots__ = (
        "_ask",
        "_cached",
        "_counted",
        "_logprobs",
        "_named",
        "_seen",
        "_started",
        "done",
        "ended",
        "ids",
    )

    def __init__(self, ask: Ask) -> None:
        self.done = False
        self.ended = False
        self._ask = ask
        self._started = False
        self._cached = 0
        self._seen = 0
        self._counted = 0
        self._logprobs: list[TokenLogprob] = []
        self._named: list[int] = []
        self.ids: list[int] = []

    def feed(self, payload: bytes) -> list[Event]:
        """Translate one chunk. Raises EngineFailed or ContextLengthExceeded for an error, and
        EngineFailed for what is no chunk."""
        try:
            return self._translate(orjson.loads(payload))
        except _MISREAD as error:
            raise _unreadable(error) from error

    def _translate(self, chunk: _Chunk) -> list[Event]:
        if "error" in chunk:
            self.ended = True
            raise _to_error(chunk["error"])
        events: list[Event] = []
        if not self._started:
            progress = chunk.get("prompt_progress")
            self._cached = progress["cache"] if progress else 0
            events.append(replace(self._ask.started, cached_tokens=self._cached))
            self._started = True
        choice, verbose = chunk["choices"][0], chunk["__verbose"]
        predicted, index = verbose["tokens_predicted"], self._ask.started.index
        # A chunk of progress names token 0, which is a real one, and counts none.
        if predicted > self._seen:
            self._seen = predicted
            if not self._ask.stop_ids.isdisjoint(verbose["tokens"]):
                # A stop of the caller's or of the model's family, unknown to the vocabulary.
                self.done = True
                self.ids = verbose["tokens"]
                events.append(Finish(index, "stop", predicted, self._cached))
                return events
            self._named += verbose["tokens"]
            if self._ask.logprobs is not None:
                entries = verbose.get("completion_probabilities", ())
                self._logprobs += (_logprob(entry, self._ask) for entry in entries)
        if choice["text"]:
            logprobs, self._logprobs = tuple(self._logprobs), []
            events.append(Text(index, choice["text"], predicted - self._counted, logprobs))
            self._counted = predicted
            self.ids, self._named = self._named, []
        if choice["finish_reason"] is not None:
            self.done = self.ended = True
            events.append(self._finish(choice["finish_reason"], chunk["usage"]))
        return events

    def _finish(self, llama_reason: str, usage: _Usage) -> Finish:
        reason: FinishReason = "length" if llama_reason == "length" else "stop"
        return Finish(
            self._ask.started.index,
            reason,
            usage["completion_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
        )


@dataclass(frozen=True, slots=True)
class Picked:
    """What a request for one token brought: its id, and its entry where the job asks for them and
    llama.cpp gives one, which it does not inside a character."""

    token: int
    logprob: TokenLogprob | None


def read_step(payload: bytes, ask: Ask) -> Picked | bool:
    """Read a chunk of a request for one token: the token, else whether more chunks come.

    Asked to stream, llama.cpp keeps a token to itself that is only a part of a character. Raises as
    `Translator.feed` does.
    """
    try:
        chunk: _Chunk = orjson.loads(payload)
        if "error" in chunk:
            raise _to_error(chunk["error"])
        verbose = chunk["__verbose"]
        if verbose["tokens_predicted"] and verbose["tokens"]:
            entries = (
                verbose.get("completion_probabilities", ()) if ask.logprobs is not None else ()
            )
            logprob = next((_logprob(entry, ask) for entry in entries), None)
            return Picked(verbose["tokens"][0], logprob)
        return chunk["choices"][0]["finish_reason"] is None
    except _MISREAD as error:
        raise _unreadable(error) from error


def _logprob(entry: _Probability, ask: Ask) -> TokenLogprob:
    """The entry of a chunk's token, or of the last one of a character's tokens, which has the bytes
    of all of them."""
    top = entry["top_logprobs"][: ask.logprobs]
    # What llama.cpp gives as an alternative's bytes leaves out control tokens.
    others = tuple(
        _token(ask.piece(other["id"]), other["logprob"])
        for other in sorted(top, key=lambda other: -other["logprob"])
    )
    return replace(_token(bytes(entry["bytes"]), entry["logprob"]), top=others)


def _token(raw: bytes, logprob: float) -> TokenLogprob:
    # Rounding may lift a certain token a hair above probability 1.
    return TokenLogprob(raw.decode(errors="replace"), raw, min(max(logprob, _IMPOSSIBLE), 0.0))


def _unreadable(error: Exception) -> EngineFailed:
    return EngineFailed(
        f"The engine sent a chunk that cannot be read ({type(error).__name__}: {error}). "
        "Send the request again."
    )


def _to_error(error: _Error) -> ApiError:
    message = error.get("message", "no reason given")
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthExceeded(f"The prompt does not fit: {message}.", param="messages")
    return EngineFailed(f"The engine could not answer this request: {message}. Send it again.")
