"""The body of POST /v1/chat/completions, checked strictly: no value is converted, none is guessed.

Knows the wire, not what an engine does with it; `adapter.chat` makes a Job of the request. null
means absent for every optional parameter, as in OpenAI's specification 2.3.0. On the good path
all checking of values is pydantic's; what a fault is called is found only once there is one.
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from qwen_openai.errors import (
    InvalidRequest,
    ModelNotFound,
    UnsupportedContent,
    UnsupportedParameter,
)
from qwen_openai.protocol import formats, sampling, thinking
from qwen_openai.protocol import messages as chat_messages
from qwen_openai.protocol import tools as chat_tools
from qwen_openai.protocol.body import parse_object
from qwen_openai.protocol.explain import Fault, find_fault
from qwen_openai.protocol.fields import header_names, refuse_ignored, refuse_unsupported
from qwen_openai.protocol.formats import ResponseFormat, StructuredOutputs
from qwen_openai.protocol.messages import ChatMessage
from qwen_openai.protocol.parameters import HONOURED, IGNORED
from qwen_openai.protocol.sampling import SamplingFields, StreamFields
from qwen_openai.protocol.shown import shown
from qwen_openai.protocol.thinking import ThinkingFields
from qwen_openai.protocol.tools import ToolFields
from qwen_openai.protocol.wire import at_most

ShortText = Annotated[str, Field(max_length=512)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], ShortText], Field(max_length=16), at_most(16)
]
# The second is how OpenAI's clients wrote the first at one time.
CacheRetention = Literal["in_memory", "in-memory", "24h"]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast"]


class ChatRequest(SamplingFields, StreamFields, ToolFields, ThinkingFields):
    """A valid request. None is "not given"; `model` is "" when it was not given.

    `ignored` names what came but has no effect, fit for a header.
    """

    model: str = ""
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    user: str | None = Field(None, max_length=512, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    metadata: Metadata | None = None
    store: bool | None = None
    service_tier: ServiceTier | None = None
    safety_identifier: ShortText | None = None
    prompt_cache_key: ShortText | None = None
    prompt_cache_retention: CacheRetention | None = None
    prompt_cache_options: dict[str, object] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    prediction: dict[str, object] | None = None

    ignored: SkipJsonSchema[tuple[str, ...]] = ()

    def as_asked(self) -> dict[str, object]:
        """Return the members that were given, but those that say what to answer and `stream`."""
        left = {"messages", "stream", "stream_options", "ignored"}
        members = self.model_dump(exclude=left, exclude_unset=True, by_alias=True)
        return {name: value for name, value in members.items() if value is not None}

    @property
    def answer_limit(self) -> int | None:
        """The most tokens that the answer may have, by whichever name; the newer one wins."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def enforced_by(self) -> str | None:
        """The parameter that the answer must obey to the letter, by a grammar; None if any text
        will do."""
        if self.structured_outputs is not None:
            return "structured_outputs"
        if self.response_format is not None and self.response_format.type != "text":
            return "response_format"
        older = self.functions is not None
        if self.call_is_required:
            return "function_call" if older else "tool_choice"
        if self.call_is_strict:
            return "functions" if older else "tools"
        return None


# What each place of a body accepts, after "must be"; see `explain`.
ACCEPTS = {
    **{row.name: row.accepts for row in (*HONOURED, *IGNORED) if row.accepts},
    **sampling.ACCEPTS,
    **formats.ACCEPTS,
    **thinking.ACCEPTS,
    **chat_messages.ACCEPTS,
    **chat_tools.ACCEPTS,
}

_KNOWN = frozenset(row.name for row in HONOURED)

_MEDIA = frozenset(
    (
        *("image_url", "image", "input_image", "input_audio", "audio", "audio_url"),
        *("video", "video_url", "file", "input_file", "refusal"),
    )
)


def parse_chat(raw: bytes, *, max_messages: int = 2048, strict: bool = False) -> ChatRequest:
    """Return the request in a body. Work is linear in its size; more messages than
    `max_messages` are refused before any is looked at. With `strict` nothing is ignored: what
    would be is refused.

    Raises InvalidJson, InvalidRequest, UnsupportedParameter, UnsupportedContent, each with the
    `param` at fault, and ModelNotFound for a model that is no string.
    """
    body = parse_object(raw, bulk="messages")
    _check_outline(body, max_messages)
    unlike = body.keys() - _KNOWN
    ignored = refuse_unsupported([name for name in body if name in unlike], body) if unlike else []
    formats.refuse_members(body)
    thinking.refuse_options(body.get("chat_template_kwargs"))
    body.pop("ignored", None)  # A member of the model that no caller sets.
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        raise _explain(find_fault(error, body, ACCEPTS), body) from None
    _check_together(request)
    ignored += _ignored_members(body)
    if request.parallel_tool_calls is not None and request.tools is None:
        ignored.append("parallel_tool_calls")
    if not ignored:
        return request
    names = header_names(ignored)
    if strict:
        refuse_ignored(names)
    return request.model_copy(update={"ignored": names})


def _check_outline(body: dict[str, object], max_messages: int) -> None:
    model = body.get("model")
    if model is None:
        body.pop("model", None)
    elif not isinstance(model, str):
        raise ModelNotFound(
            f"The model {shown(model)} does not exist; a model's name is a string.", param="model"
        )
    messages = body.get("messages")
    if isinstance(messages, list) and len(messages) > max_messages:
        raise InvalidRequest(
            f"messages holds {len(messages)} messages; at most {max_messages} are taken.",
            param="messages",
        )


def _check_together(request: ChatRequest) -> None:
    chat_messages.check_messages(request.messages)
    chat_tools.check_tools(request)
    formats.check_formats(request.response_format, request.structured_outputs)
    thinking.check_thinking(request)
    sampling.check_sampling(request, max_tokens=request.answer_limit)
    sampling.check_stream(request)
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidRequest(
            "top_logprobs is only allowed with logprobs: true.", param="top_logprobs"
        )
    _check_continuation(request)
    _check_enforced(request)


def _check_continuation(request: ChatRequest) -> None:
    if request.continue_final_message:
        if request.add_generation_prompt:
            raise InvalidRequest(
                "continue_final_message and add_generation_prompt exclude each other.",
                param="continue_final_message",
            )
        last = request.messages[-1]
        if last.role != "assistant":
            raise InvalidRequest(
                "continue_final_message needs a last message with the role assistant, "
                f"got {last.role}.",
                param="continue_final_message",
            )
        if last.tool_calls or last.function_call is not None or last.content is None:
            raise InvalidRequest(
                "continue_final_message needs a last message with content, and without calls, "
                "which are complete.",
                param="continue_final_message",
            )
    elif request.add_generation_prompt is False:
        raise UnsupportedParameter(
            "add_generation_prompt: false is only supported with continue_final_message: true.",
            param="add_generation_prompt",
        )


def _check_enforced(request: ChatRequest) -> None:
    """Refuse what a grammar leaves no room for: an answer that may not end where the grammar does,
    and one that begins in its middle."""
    by = request.enforced_by
    if by is None:
        return
    for name, asked in (
        ("ignore_eos", request.ignore_eos),
        ("min_tokens", request.min_tokens),
        ("continue_final_message", request.continue_final_message),
    ):
        if asked:
            raise InvalidRequest(
                f"{name} cannot be honoured where {by} says what the answer must be; "
                "leave one of them out.",
                param=name,
            )


def _explain(fault: Fault, body: dict[str, object]) -> InvalidRequest:
    value = fault.value
    if fault.key == "messages[].content[].type" and isinstance(value, str) and value in _MEDIA:
        model = body.get("model", "")
        return UnsupportedContent(
            f"{fault.param}: the model {shown(model)} takes text only; "
            f"content parts of type {value} are not supported.",
            param=fault.param.removesuffix(".type"),
        )
    return fault.to_error(ACCEPTS)


def _ignored_members(body: dict[str, object]) -> list[str]:
    """Return dotted names of what messages, tools and stream_options hold beyond what we read.

    The body is valid by now.
    """
    found = chat_messages.ignored_members(body["messages"])
    found |= chat_tools.ignored_members(body)
    found |= sampling.ignored_stream_options(body.get("stream_options"))
    return sorted(found)
