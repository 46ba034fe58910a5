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
from qwen_openai.protocol import messages as chat_messages
from qwen_openai.protocol import tools as chat_tools
from qwen_openai.protocol.body import parse_object
from qwen_openai.protocol.explain import Fault, find_fault
from qwen_openai.protocol.fields import header_names, refuse_unsupported
from qwen_openai.protocol.messages import ChatMessage, check_messages, refuse_calls
from qwen_openai.protocol.parameters import HONOURED, IGNORED
from qwen_openai.protocol.shown import shown
from qwen_openai.protocol.tools import ToolChoice, Tools, check_tools, refuse_tools
from qwen_openai.protocol.wire import Wire

ShortText = Annotated[str, Field(max_length=512)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]


class StreamOptions(Wire):
    """What a stream holds besides text. Obfuscation is never added, whatever is asked."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Wire):
    """A valid request. None is "not given"; `model` is "" when it was not given.

    `ignored` names what came but has no effect, fit for a header.
    """

    model: str = ""
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    # Not "above 0": engines divide by it in float32, which makes 0 or infinity of smaller ones.
    repetition_penalty: float | None = Field(None, ge=0.01, le=2)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    n: int | None = Field(None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    user: str | None = Field(None, max_length=512, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    metadata: (
        Annotated[dict[Annotated[str, Field(max_length=64)], ShortText], Field(max_length=16)]
        | None
    ) = None
    store: bool | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    safety_identifier: ShortText | None = None
    prompt_cache_key: ShortText | None = None

    ignored: SkipJsonSchema[tuple[str, ...]] = ()

    @property
    def streams(self) -> bool:
        """Whether the answer goes out as server-sent events."""
        return self.stream is True

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage is True


# What each place of a body accepts, after "must be"; see `explain`.
ACCEPTS = {
    **{row.name: row.accepts for row in (*HONOURED, *IGNORED) if row.accepts},
    **chat_messages.ACCEPTS,
    **chat_tools.ACCEPTS,
    "stop[]": "a string of 1 to 1024 characters",
    "stream_options.include_usage": "true or false",
    "stream_options.include_obfuscation": "true or false",
}

_TOOL_MEMBERS = frozenset(("tools", "tool_choice", "parallel_tool_calls"))
_KNOWN = frozenset(row.name for row in HONOURED)
_KNOWN_WITHOUT_TOOLS = _KNOWN - {"parallel_tool_calls"}

_MEDIA = frozenset(
    (
        *("image_url", "image", "input_image", "input_audio", "audio", "audio_url"),
        *("video", "video_url", "file", "input_file", "refusal"),
    )
)
_STREAM_OPTIONS = frozenset(("include_usage", "include_obfuscation"))


def parse_chat(raw: bytes, *, max_messages: int = 2048, tools: bool = False) -> ChatRequest:
    """Return the request in a body. Work is linear in its size; more messages than
    `max_messages` are refused before any is looked at, and so is all that comes with tools, unless
    the model takes `tools`.

    Raises InvalidJson, InvalidRequest, UnsupportedParameter, UnsupportedContent, each with the
    `param` at fault, and ModelNotFound for a model that is no string.
    """
    body = parse_object(raw, bulk="messages")
    _check_outline(body, max_messages)
    unlike = body.keys() - (_KNOWN if tools else _KNOWN_WITHOUT_TOOLS)
    ignored = refuse_unsupported([name for name in body if name in unlike], body) if unlike else []
    if not tools:
        refuse_tools(body)
    refuse_calls(body.get("messages"), tools=tools)
    # Members of the model that no caller sets, or that this model does not have.
    for name in ("ignored", *(() if tools else _TOOL_MEMBERS)):
        body.pop(name, None)
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        raise _explain(find_fault(error, body, ACCEPTS), body) from None
    check_messages(request.messages)
    _check_together(request)
    nested = _ignored_members(body)
    if request.parallel_tool_calls is not None and request.tools is None:
        ignored.append("parallel_tool_calls")
    if ignored or nested:
        return request.model_copy(update={"ignored": header_names([*ignored, *nested])})
    return request


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
    check_tools(request.tools, request.tool_choice)
    if request.stream_options is not None and not request.streams:
        raise InvalidRequest(
            "stream_options is only allowed with stream: true.", param="stream_options"
        )
    if request.continue_final_message:
        if request.add_generation_prompt:
            raise InvalidRequest(
                "continue_final_message and add_generation_prompt exclude each other.",
                param="continue_final_message",
            )
        if request.messages[-1].role != "assistant":
            raise InvalidRequest(
                "continue_final_message needs a last message with the role assistant, "
                f"got {request.messages[-1].role}.",
                param="continue_final_message",
            )
    elif request.add_generation_prompt is False:
        raise UnsupportedParameter(
            "add_generation_prompt: false is only supported with continue_final_message: true.",
            param="add_generation_prompt",
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
    found |= chat_tools.ignored_members(body.get("tools"))
    options = body.get("stream_options")
    if isinstance(options, dict):
        found |= {f"stream_options.{name}" for name in options.keys() - _STREAM_OPTIONS}
    return sorted(found)
