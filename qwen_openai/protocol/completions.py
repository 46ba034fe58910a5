"""The body of POST /v1/completions, checked strictly, and its own support matrix.

Knows the wire, not what an engine does with it; `adapter.completions` makes Jobs of the request.
Names and ranges are those of OpenAI's specification 2.3.0 (CreateCompletionRequest) and of vLLM;
null means absent for every optional parameter.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from qwen_openai.errors import InvalidRequest, ModelNotFound
from qwen_openai.protocol import formats, sampling
from qwen_openai.protocol.body import parse_object
from qwen_openai.protocol.explain import find_fault
from qwen_openai.protocol.fields import header_names, refuse_ignored, refuse_unsupported
from qwen_openai.protocol.formats import ResponseFormat, StructuredOutputs
from qwen_openai.protocol.parameters import FORBIDDEN, NEUTRAL, PARAMETERS, Parameter
from qwen_openai.protocol.sampling import SamplingFields, StreamFields, TokenId
from qwen_openai.protocol.shown import shown

# Both are beyond what a context or an operator allows; below them a body is cheap to look at.
MAX_PROMPTS = 128
MAX_IDS = 2**18
DEFAULT_MAX_TOKENS = 16

Ids = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_IDS, fail_fast=True)]
Prompt = Annotated[
    str
    | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    | Ids
    | Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)],
    Field(union_mode="left_to_right"),
]


class CompletionRequest(SamplingFields, StreamFields):
    """A valid request. None is "not given"; `model` is "" when it was not given.

    `ignored` names what came but has no effect, fit for a header.
    """

    model: str = ""
    prompt: Prompt
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=20)
    logprobs: int | None = Field(None, ge=0, le=5)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    user: str | None = Field(None, max_length=512, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")

    ignored: SkipJsonSchema[tuple[str, ...]] = ()

    def as_asked(self) -> dict[str, object]:
        """Return the members that were given, but those that say what to answer and `stream`."""
        left = {"prompt", "suffix", "stream", "stream_options", "ignored"}
        members = self.model_dump(exclude=left, exclude_unset=True, by_alias=True)
        return {name: value for name, value in members.items() if value is not None}

    @cached_property
    def prompts(self) -> Sequence[str | tuple[int, ...]]:
        """The prompts, each a text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        texts: list[str | tuple[int, ...]] = []
        ids: list[int] = []
        for each in self.prompt:
            if isinstance(each, int):
                ids.append(each)
            else:
                texts.append(each if isinstance(each, str) else tuple(each))
        return [tuple(ids)] if ids else texts

    @property
    def made(self) -> int:
        """How many answers are made of each prompt; `n` of them are sent."""
        return max(self.best_of or 1, self.n or 1)


def _as_in_chat(*names: str) -> tuple[Parameter, ...]:
    return tuple(PARAMETERS[name] for name in names)


HONOURED = (
    *_as_in_chat("model"),
    Parameter(
        "prompt",
        "honoured",
        "a string, a list of strings, a list of token ids or a list of such lists",
        "control tokens in it are what they say; the choices of prompt p are those from p*n on",
    ),
    Parameter(
        "suffix",
        "honoured",
        "a string",
        "the model fills in what stands between",
        needs="fill_in",
    ),
    Parameter(
        "max_tokens",
        "honoured",
        "an integer of at least 1",
        "16 unless given; clamped to what is left of the context, and reported",
    ),
    Parameter("echo", "honoured", "true or false", "the prompt in front; not with `logprobs`"),
    Parameter(
        "best_of",
        "honoured",
        "an integer between 1 and 20",
        "at least `n`; picks by mean log probability, usage counts all; not with `stream`",
    ),
    Parameter("logprobs", "honoured", "an integer between 0 and 5"),
    *_as_in_chat(
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "seed",
        "min_tokens",
        "stop",
        "stop_token_ids",
        "include_stop_str_in_output",
        "ignore_eos",
        "n",
        "stream",
        "stream_options",
        "response_format",
        "structured_outputs",
    ),
)

_OWN = frozenset(row.name for row in HONOURED)
_INSTEAD = {
    "messages": "prompt",
    "max_completion_tokens": "max_tokens",
    "top_logprobs": "logprobs, which is a number here",
}
_FOR_CHAT = tuple(
    Parameter(
        row.name,
        "refused",
        note="of `/v1/chat/completions`",
        harmless=NEUTRAL.get(row.name, ()),
        instead=_INSTEAD.get(row.name, ""),
    )
    for row in PARAMETERS.values()
    if row.use == "honoured" and row.name not in _OWN
)
# What chat completions ignore or refuse, so do completions, for the same reasons.
_LIKEWISE = tuple(
    row for row in PARAMETERS.values() if row.use in ("ignored", "refused") and row.name not in _OWN
)

COMPLETION_PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {row.name: row for row in (*HONOURED, *_LIKEWISE, *_FOR_CHAT, *FORBIDDEN)}
)

# What each place of a body accepts, after "must be"; see `explain`.
ACCEPTS = {
    **{row.name: row.accepts for row in HONOURED},
    "user": PARAMETERS["user"].accepts,
    **sampling.ACCEPTS,
    **formats.ACCEPTS,
}


def parse_completion(raw: bytes, *, strict: bool = False) -> CompletionRequest:
    """Return the request in a body. Work is linear in its size. With `strict` nothing is ignored:
    what would be is refused.

    Raises InvalidJson, InvalidRequest and UnsupportedParameter, each with the `param` at fault, and
    ModelNotFound for a model that is no string.
    """
    body = parse_object(raw, bulk="prompt")
    check_model_name(body)
    unlike = [name for name in body if name not in _OWN]
    ignored = refuse_unsupported(unlike, body, COMPLETION_PARAMETERS)
    formats.refuse_members(body)
    body.pop("ignored", None)  # A member of the model that no caller sets.
    if body.get("prompt") is None:
        body.pop("prompt", None)  # null as if it were not there: one error for both.
    try:
        request = CompletionRequest.model_validate(body)
    except ValidationError as error:
        raise find_fault(error, body, ACCEPTS).to_error(ACCEPTS) from None
    _check_together(request)
    ignored += sorted(sampling.ignored_stream_options(body.get("stream_options")))
    if not ignored:
        return request
    names = header_names(ignored)
    if strict:
        refuse_ignored(names)
    return request.model_copy(update={"ignored": names})


def check_model_name(body: dict[str, object]) -> None:
    """Refuse a model that is no string with ModelNotFound; take null out of the body."""
    model = body.get("model")
    if model is None:
        body.pop("model", None)
    elif not isinstance(model, str):
        raise ModelNotFound(
            f"The model {shown(model)} does not exist; a model's name is a string.", param="model"
        )


def _check_together(request: CompletionRequest) -> None:
    sampling.check_sampling(request, max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS)
    sampling.check_stream(request)
    formats.check_formats(request.response_format, request.structured_outputs)
    _check_best_of(request)
    if request.echo and request.logprobs is not None:
        raise InvalidRequest(
            "echo and logprobs exclude each other: no log probabilities are known of a prompt's "
            "tokens. Leave one of them out.",
            param="echo",
        )
    if not request.suffix:
        for index, prompt in enumerate(request.prompts):
            if not prompt:
                place = "prompt" if isinstance(request.prompt, str) else f"prompt[{index}]"
                raise InvalidRequest(
                    f"{place} is empty; a model needs at least one token to go on from.",
                    param=place,
                )


def _check_best_of(request: CompletionRequest) -> None:
    if request.best_of is None:
        return
    n = request.n or 1
    if request.best_of < n:
        raise InvalidRequest(
            f"best_of must be at least n, got {request.best_of} and n {n}.", param="best_of"
        )
    if request.best_of > n and request.streams:
        raise InvalidRequest(
            "best_of above n cannot be streamed: which answer is best is known at the end.",
            param="best_of",
        )
