"""The body of POST /v1/responses, checked strictly, and its own support matrix.

Knows the wire, not what an engine does with it; `adapter.responses_api` makes a Job of the request.
Names and ranges are those of OpenAI's specification 2.3.0 (CreateResponse); null means absent for
every optional parameter. Nothing is stored, so whatever names something stored is refused.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, ValidationError
from pydantic.json_schema import SkipJsonSchema

from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol import response_items as items
from qwen_openai.protocol.body import parse_object
from qwen_openai.protocol.chat import CacheRetention, Metadata, ServiceTier, ShortText
from qwen_openai.protocol.completions import check_model_name
from qwen_openai.protocol.explain import find_fault
from qwen_openai.protocol.fields import header_names, refuse_ignored, refuse_unsupported
from qwen_openai.protocol.formats import JsonObjectFormat, TextFormat
from qwen_openai.protocol.messages import FunctionName
from qwen_openai.protocol.parameters import FORBIDDEN, NEUTRAL, PARAMETERS, Parameter
from qwen_openai.protocol.response_items import Choice, FunctionTool, Item
from qwen_openai.protocol.sampling import StopString
from qwen_openai.protocol.thinking import Effort
from qwen_openai.protocol.tools import MAX_TOOLS
from qwen_openai.protocol.wire import Wire

LOGPROBS = "message.output_text.logprobs"


class SchemaFormat(Wire):
    """JSON that matches a schema; `strict` changes nothing, a schema is always enforced."""

    type: Literal["json_schema"]
    name: FunctionName
    description: str | None = None
    schema_: dict[str, object] = Field(alias="schema")
    strict: bool | None = None


def _format_of(value: object) -> str:
    """Name the model for a format, as pydantic's tag; an unknown type is TextFormat's to refuse."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    named = {"json_object": "JsonObjectFormat", "json_schema": "SchemaFormat"}
    return named.get(kind, "TextFormat") if isinstance(kind, str) else "TextFormat"


Format = Annotated[
    Annotated[TextFormat, Tag("TextFormat")]
    | Annotated[JsonObjectFormat, Tag("JsonObjectFormat")]
    | Annotated[SchemaFormat, Tag("SchemaFormat")],
    Discriminator(_format_of),
]


class TextOptions(Wire):
    """What the answer's text must look like; `verbosity` changes nothing."""

    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Wire):
    """How much to think. Thoughts are sent as they are, never as a summary."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ObfuscationOptions(Wire):
    """What a stream holds besides text. Obfuscation is never added, whatever is asked."""

    include_obfuscation: bool | None = None


Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


class ResponsesRequest(Wire):
    """A valid request. None is "not given"; `model` is "" when it was not given.

    `ignored` names what came but has no effect, fit for a header.
    """

    model: str = ""
    input: str | Annotated[list[Item], Field(min_length=1, fail_fast=True)]
    instructions: str | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: Annotated[list[Include], Field(max_length=32)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stream: bool | None = None
    stream_options: ObfuscationOptions | None = None
    metadata: Metadata | None = None
    # vLLM's, as in chat completions
    top_k: int | None = Field(None, ge=-1, le=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.01, le=2)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None

    user: str | None = Field(None, max_length=512, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    store: bool | None = None
    service_tier: ServiceTier | None = None
    safety_identifier: ShortText | None = None
    prompt_cache_key: ShortText | None = None
    prompt_cache_retention: CacheRetention | None = None
    prompt_cache_options: dict[str, object] | None = None
    max_tool_calls: int | None = None

    ignored: SkipJsonSchema[tuple[str, ...]] = ()

    @property
    def streams(self) -> bool:
        """Whether the answer goes out as server-sent events."""
        return self.stream is True

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's text comes with log probabilities; either parameter asks for it."""
        return bool(self.top_logprobs) or LOGPROBS in (self.include or ())


def _as_in_chat(*names: str) -> tuple[Parameter, ...]:
    return tuple(PARAMETERS[name] for name in names)


HONOURED = (
    *_as_in_chat("model"),
    Parameter(
        "input",
        "honoured",
        "a string or a list of at least one item",
        "messages of text, function_call, function_call_output and reasoning items",
    ),
    Parameter("instructions", "honoured", "a string", "stands before all system messages of input"),
    Parameter(
        "tools",
        "honoured",
        f"a list of at most {MAX_TOOLS} tools",
        "functions only; the arguments of one with `strict: true` always match its schema",
        needs="tools",
    ),
    Parameter(
        "tool_choice",
        "honoured",
        '"none", "auto", "required", a function of tools or allowed_tools',
        "a call that is asked for is enforced",
        needs="tools",
    ),
    *_as_in_chat("parallel_tool_calls"),
    Parameter(
        "text",
        "honoured",
        "an object with format",
        "`text`, `json_object`, `json_schema`, enforced; `verbosity` changes nothing",
    ),
    Parameter(
        "reasoning",
        "honoured",
        "an object with effort",
        '`effort` "none" and "minimal" mean no thoughts; thoughts are sent as `reasoning_text`, '
        "never as a summary",
        needs="thinking",
        otherwise="ignored",
    ),
    Parameter(
        "max_output_tokens",
        "honoured",
        "an integer of at least 1",
        "clamped to what is left of the context, and reported",
    ),
    *_as_in_chat("temperature", "top_p"),
    Parameter(
        "top_logprobs", "honoured", "an integer between 0 and 20", "above 0 it asks for logprobs"
    ),
    Parameter(
        "include",
        "honoured",
        "a list of what the specification names",
        f"`{LOGPROBS}`; the others change nothing and are reported",
    ),
    Parameter(
        "truncation",
        "honoured",
        '"auto" or "disabled"',
        "auto leaves out the oldest turns that do not fit, and reports it",
    ),
    *_as_in_chat("stream"),
    Parameter(
        "stream_options",
        "honoured",
        "an object",
        "`include_obfuscation` changes nothing; only with `stream: true`",
    ),
    Parameter(
        "metadata",
        "honoured",
        "an object of at most 16 strings, keys up to 64 characters, values up to 512",
        "sent back",
    ),
    *_as_in_chat(
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "seed",
        "stop",
    ),
)

IGNORED = (
    *_as_in_chat("user", "store", "service_tier", "safety_identifier"),
    *_as_in_chat("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
    Parameter(
        "max_tool_calls", "ignored", "an integer", "counts the calls of tools that a server runs"
    ),
)

_NOTHING_STORED = "nothing is stored here"

REFUSED = (
    Parameter(
        "previous_response_id",
        "refused",
        note=_NOTHING_STORED,
        instead="the whole conversation in input",
    ),
    Parameter(
        "conversation", "refused", note=_NOTHING_STORED, instead="the whole conversation in input"
    ),
    Parameter("prompt", "refused", note=_NOTHING_STORED, instead="instructions and input"),
    Parameter(
        "background", "refused", note=_NOTHING_STORED, harmless=(False,), instead="stream: true"
    ),
    Parameter("context_management", "refused"),
    Parameter("moderation", "refused"),
)

_OWN = frozenset(row.name for row in HONOURED)
_INSTEAD = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "structured_outputs": "text.format",
    "reasoning_effort": "reasoning.effort",
    "enable_thinking": "reasoning.effort",
    "chat_template_kwargs": "reasoning.effort",
    "logprobs": "top_logprobs",
    "functions": "tools",
    "function_call": "tool_choice",
}
# What is decided here; for the documentation.
SETTLED = (*HONOURED, *IGNORED, *REFUSED)
_SETTLED = frozenset(row.name for row in (*SETTLED, *FORBIDDEN))
_FOR_CHAT = tuple(
    Parameter(
        row.name,
        "refused",
        note="of `/v1/chat/completions`",
        harmless=NEUTRAL.get(row.name, ()),
        instead=_INSTEAD.get(row.name, ""),
    )
    for row in PARAMETERS.values()
    if row.use == "honoured" and row.name not in _SETTLED
)
# What chat completions ignore or refuse beside these, so do responses, for the same reasons.
_LIKEWISE = tuple(
    row
    for row in PARAMETERS.values()
    if row.use in ("ignored", "refused") and row.name not in _SETTLED
)

RESPONSES_PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {row.name: row for row in (*SETTLED, *_LIKEWISE, *_FOR_CHAT, *FORBIDDEN)}
)

_EFFORTS = 'one of "none", "minimal", "low", "medium", "high", "xhigh", "max"'
_SUMMARIES = '"auto", "concise" or "detailed"'

# What each place of a body accepts, after "must be"; see `explain`.
ACCEPTS = {
    **{row.name: row.accepts for row in (*HONOURED, *IGNORED) if row.accepts},
    **items.ACCEPTS,
    "text.format": 'an object like {"type": "json_object"}',
    "text.format.type": '"text", "json_object" or "json_schema"',
    "text.format.name": "1 to 64 letters, digits, _ or -",
    "text.format.description": "a string",
    "text.format.schema": "an object, a JSON Schema",
    "text.format.strict": "true or false",
    "text.verbosity": '"low", "medium" or "high"',
    "reasoning.effort": _EFFORTS,
    "reasoning.summary": _SUMMARIES,
    "reasoning.generate_summary": _SUMMARIES,
    "include[]": "one of the names in the specification",
    "stop[]": "a string of 1 to 1024 characters",
    "stream_options.include_obfuscation": "true or false",
}


def parse_responses(
    raw: bytes, *, max_messages: int = 2048, strict: bool = False
) -> ResponsesRequest:
    """Return the request in a body. Work is linear in its size; more items than `max_messages` are
    refused before any is looked at. With `strict` nothing is ignored: what would be is refused.

    Raises InvalidJson, InvalidRequest, UnsupportedParameter, UnsupportedContent, each with the
    `param` at fault, and ModelNotFound for a model that is no string.
    """
    body = parse_object(raw, bulk="input")
    _check_outline(body, max_messages)
    unlike = [name for name in body if name not in _OWN]
    ignored = refuse_unsupported(unlike, body, RESPONSES_PARAMETERS)
    items.refuse_items(body.get("input"))
    items.refuse_tools(body.get("tools"))
    body.pop("ignored", None)  # A member of the model that no caller sets.
    if body.get("input") is None:
        body.pop("input", None)  # null as if it were not there: one error for both.
    try:
        request = ResponsesRequest.model_validate(body)
    except ValidationError as error:
        raise find_fault(error, body, ACCEPTS).to_error(ACCEPTS) from None
    if request.stream_options is not None and not request.streams:
        raise InvalidRequest(
            "stream_options is only allowed with stream: true.", param="stream_options"
        )
    ignored += _ignored_members(request, body)
    if not ignored:
        return request
    names = header_names(ignored)
    if strict:
        refuse_ignored(names)
    return request.model_copy(update={"ignored": names})


def _check_outline(body: dict[str, object], max_messages: int) -> None:
    check_model_name(body)
    given = body.get("input")
    if isinstance(given, list) and len(given) > max_messages:
        raise InvalidRequest(
            f"input holds {len(given)} items; at most {max_messages} are taken.", param="input"
        )


def _ignored_members(request: ResponsesRequest, body: dict[str, object]) -> list[str]:
    """Return dotted names of what is inside parameters and has no effect; the body is valid."""
    found = items.ignored_members(body)
    for name, known in (
        ("text", frozenset(("format",))),
        ("reasoning", frozenset(("effort",))),
        ("stream_options", frozenset(("include_obfuscation",))),
    ):
        given = body.get(name)
        for inner, value in given.items() if isinstance(given, dict) else ():
            if inner not in known and value is not None and (inner, value) != _MEDIUM:
                found.add(f"{name}.{inner}")
    found |= {f"include.{name}" for name in request.include or () if name != LOGPROBS}
    if request.parallel_tool_calls is not None and not request.tools:
        found.add("parallel_tool_calls")
    return sorted(found)


_MEDIUM = ("verbosity", "medium")
