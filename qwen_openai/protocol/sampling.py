"""How tokens are picked, where an answer ends, how it is sent: what all generating routes share.

Knows the wire only. Ranges are OpenAI's, those of its own parameters vLLM's. Whether a token id
is one of the model's, only the engine's vocabulary can say.
"""

from typing import Annotated

from pydantic import Field

from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.wire import Wire, at_most

MAX_STOP_IDS = 128
MAX_BIASES = 1024

StopString = Annotated[str, Field(min_length=1, max_length=1024)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
# JSON has no integer keys: the decimal digits of one.
TokenKey = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
LogitBias = Annotated[
    dict[TokenKey, Bias], Field(max_length=MAX_BIASES), at_most(MAX_BIASES)
]  # fmt: skip


class SamplingFields(Wire):
    """The parameters of sampling; None is "not given"."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    # Not "above 0": engines divide by it in float32, which makes 0 or infinity of smaller ones.
    repetition_penalty: float | None = Field(None, ge=0.01, le=2)
    logit_bias: LogitBias | None = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=0)
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    n: int | None = Field(None, ge=1)


class StreamOptions(Wire):
    """What a stream holds besides text. Obfuscation is never added, whatever is asked."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class StreamFields(Wire):
    """Whether an answer is streamed, and how."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def streams(self) -> bool:
        """Whether the answer goes out as server-sent events."""
        return self.stream is True

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage is True


# What each place inside a parameter accepts, after "must be"; see `explain`.
ACCEPTS = {
    "logit_bias.*": "the digits of a token id with a number between -100 and 100",
    "stop[]": "a string of 1 to 1024 characters",
    "stop_token_ids[]": "an integer between 0 and 2147483647",
    "stream_options.include_usage": "true or false",
    "stream_options.include_obfuscation": "true or false",
}

_STREAM_OPTIONS = frozenset(StreamOptions.model_fields)


def check_sampling(request: SamplingFields, *, max_tokens: int | None) -> None:
    """Refuse a `min_tokens` above the answer's limit. Raises InvalidRequest."""
    if request.min_tokens and max_tokens is not None and request.min_tokens > max_tokens:
        raise InvalidRequest(
            f"min_tokens is {request.min_tokens}, more than the {max_tokens} tokens that the "
            "answer may have.",
            param="min_tokens",
        )


def check_stream(request: StreamFields) -> None:
    """Refuse options of a stream where there is none. Raises InvalidRequest."""
    if request.stream_options is not None and not request.streams:
        raise InvalidRequest(
            "stream_options is only allowed with stream: true.", param="stream_options"
        )


def ignored_stream_options(options: object) -> set[str]:
    """Return dotted names of what valid options, as they came, hold beyond what is read."""
    if not isinstance(options, dict):
        return set()
    return {f"stream_options.{name}" for name in options.keys() - _STREAM_OPTIONS}
