"""A Job as a llama.cpp completion request, and llama.cpp's chunks as Events. Pure: no I/O.

Every sampling field is sent with every request, because llama.cpp's defaults are not OpenAI's
(top_k 40, min_p 0.05, temperature after top_p). Chunk fields were read off xllamacpp 2026.10; what
they are is in docs/engines.md.
"""

import secrets
from typing import TypedDict

import orjson

from qwen_openai.core import Event, Finish, FinishReason, Job, Sampling, Started, Text
from qwen_openai.errors import ApiError, ContextLengthExceeded, EngineFailed

# This seed means "random" to llama.cpp.
_RANDOM_SEED = 0xFFFFFFFF

# The order of vLLM and Hugging Face: temperature shapes the distribution that min_p and top_p cut.
# top_k keeps the same tokens before or after temperature, and is cheapest first.
_SAMPLERS = ("penalties", "top_k", "temperature", "min_p", "top_p")


class _Choice(TypedDict):
    text: str
    finish_reason: str | None


class _Verbose(TypedDict):
    tokens: list[int]
    tokens_predicted: int


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


def to_uint32(seed: int | None, choice: int) -> int:
    """Map any int64 seed and the choice's index to what llama.cpp takes; None draws a fresh one."""
    if seed is None:
        return secrets.randbelow(_RANDOM_SEED)
    wide = seed % 2**64
    return ((wide ^ (wide >> 32)) % 2**32 + choice) % _RANDOM_SEED


def request_body(
    job: Job, ids: list[int], max_tokens: int, *, context: int, prompt_cache: bool
) -> bytes:
    """The body of a completion request for token ids, as JSON."""
    sampling = job.sampling
    greedy = sampling.is_greedy
    return orjson.dumps(
        {
            "prompt": ids,
            "n_predict": max_tokens,
            "stream": True,
            # Chunks then carry token ids and the exact count so far.
            "verbose": True,
            # An empty chunk as prefill begins and after each of its batches: places to cancel.
            "return_progress": True,
            "cache_prompt": prompt_cache,
            "seed": to_uint32(sampling.seed, job.choice),
            "samplers": _SAMPLERS,
            "temperature": 1.0 if greedy else sampling.temperature,
            "top_k": 1 if greedy else sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": context,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "typical_p": 1.0,
            "top_n_sigma": -1.0,
            "dry_multiplier": 0.0,
            "xtc_probability": 0.0,
            "dynatemp_range": 0.0,
            "mirostat": 0,
            "adaptive_target": -1.0,
            "min_keep": 0,
            "n_keep": 0,
            "n_probs": 0,
            "n_cache_reuse": 0,
            "ignore_eos": False,
            "logit_bias": [],
            "grammar": "",
            "stop": [],
        }
    )


def penalty_changes(sampling: Sampling) -> tuple[str, ...]:
    """What a client should know about penalties here: OpenAI's do not count the prompt's tokens."""
    return tuple(
        f"{name} counts the prompt's tokens too"
        for name, value in (
            ("presence_penalty", sampling.presence_penalty),
            ("frequency_penalty", sampling.frequency_penalty),
        )
        if value != 0
    )


class Translator:
    """Chunks of one request in, its events out: one Started, Texts, one Finish.

    ``done`` turns true with the Finish; ``ended`` tells whether llama.cpp ended the answer itself,
    else it still generates and must be cancelled.
    """

    __slots__ = (
        "_cached",
        "_changes",
        "_counted",
        "_index",
        "_prompt_tokens",
        "_stop_ids",
        "done",
        "ended",
    )

    def __init__(
        self, index: int, prompt_tokens: int, changes: tuple[str, ...], stop_ids: frozenset[int]
    ) -> None:
        self.done = False
        self.ended = False
        self._index = index
        self._prompt_tokens = prompt_tokens
        self._changes: tuple[str, ...] | None = changes
        self._stop_ids = stop_ids
        self._cached = 0
        self._counted = 0

    def feed(self, payload: bytes) -> list[Event]:
        """Translate one chunk. Raises EngineFailed or ContextLengthExceeded for an error, and
        EngineFailed for what is no chunk."""
        try:
            return self._translate(orjson.loads(payload))
        except (LookupError, TypeError, AttributeError, orjson.JSONDecodeError) as error:
            raise EngineFailed(
                f"The engine sent a chunk that cannot be read ({type(error).__name__}: {error}). "
                "Send the request again."
            ) from error

    def _translate(self, chunk: _Chunk) -> list[Event]:
        if "error" in chunk:
            self.ended = True
            raise _to_error(chunk["error"])
        events: list[Event] = []
        if self._changes is not None:
            progress = chunk.get("prompt_progress")
            self._cached = progress["cache"] if progress else 0
            events.append(Started(self._index, self._prompt_tokens, self._cached, self._changes))
            self._changes = None
        choice, verbose = chunk["choices"][0], chunk["__verbose"]
        predicted = verbose["tokens_predicted"]
        if not self._stop_ids.isdisjoint(verbose["tokens"]):
            # The vocabulary does not end answers with this token, but the model's family does.
            self.done = True
            events.append(Finish(self._index, "stop", predicted, self._cached))
            return events
        if choice["text"]:
            events.append(Text(self._index, choice["text"], predicted - self._counted))
            self._counted = predicted
        if choice["finish_reason"] is not None:
            self.done = self.ended = True
            events.append(self._finish(choice["finish_reason"], chunk["usage"]))
        return events

    def _finish(self, llama_reason: str, usage: _Usage) -> Finish:
        reason: FinishReason = "length" if llama_reason == "length" else "stop"
        return Finish(
            self._index,
            reason,
            usage["completion_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
        )


def _to_error(error: _Error) -> ApiError:
    message = error.get("message", "no reason given")
    if error.get("type") == "exceed_context_size_error":
        return ContextLengthExceeded(f"The prompt does not fit: {message}.", param="messages")
    return EngineFailed(f"The engine could not answer this request: {message}. Send it again.")
