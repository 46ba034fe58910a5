"""What the bodies of several endpoints share: usage, logprobs, framing of chunks.

Source of the shapes: OpenAI's specification 2.3.0. Knows no HTTP and no single endpoint.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from qwen_openai.core import Event, Extra, TokenLogprob, Usage
from qwen_openai.errors import ApiError
from qwen_openai.responses.errors import error_body
from qwen_openai.responses.extras import Waiting
from qwen_openai.sse import DONE, frame

# What stands for a token that cannot be: JSON has no minus infinity, and the specification's own
# figure for "very unlikely" is this.
LEAST_LOGPROB = -9999.0


class DataEvents(ABC):
    """How chunks of chat completions and completions go out: as bare `data:` events, the end as
    `[DONE]`, a failure as an event that is an error body. What an upstream sent beside goes out
    with the next chunk of the same choice."""

    done: ClassVar[bytes] = DONE

    def __init__(self) -> None:
        self._extras = Waiting()

    @abstractmethod
    def own_chunks(self, event: Event) -> list[dict[str, object]]:
        """Return what the endpoint makes of an event, none of events that clients do not see."""

    def chunks(self, event: Event) -> list[dict[str, object]]:
        """Return an event's chunks."""
        if isinstance(event, Extra):
            self._extras.add(event)
            return []
        chunks = self.own_chunks(event)
        if self._extras and chunks:
            chunks[0] = self._extras.join(event.index, chunks[0])
        return chunks

    def frame(self, chunk: object) -> bytes:
        """Return the event of a chunk."""
        return frame(chunk)

    def failed(self, error: ApiError) -> bytes:
        """Return the last bytes of a stream that broke."""
        return frame(error_body(error)) + DONE


def usage_object(usage: Usage) -> dict[str, object]:
    """Return the specification's CompletionUsage; what a text model never has is 0."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def logprob_of(token: TokenLogprob) -> float:
    """Return a token's log probability as a number that JSON has."""
    # Not max(): that would let NaN through.
    return token.logprob if token.logprob > LEAST_LOGPROB else LEAST_LOGPROB


def token_logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, object]]:
    """Return tokens as a list of the specification's ChatCompletionTokenLogprob."""
    return [
        {**_alone(token), "top_logprobs": [_alone(top) for top in token.top]} for token in tokens
    ]


def _alone(token: TokenLogprob) -> dict[str, object]:
    return {"token": token.text, "logprob": logprob_of(token), "bytes": list(token.raw)}
