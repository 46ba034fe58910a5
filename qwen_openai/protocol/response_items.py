"""What `input` and `tools` of a responses body hold: their wire models and what they refuse.

Knows the wire only; `adapter.responses_api` makes a conversation of it. Shapes are those of
OpenAI's specification 2.3.0 (InputItem, FunctionTool, ToolChoiceParam), of which text and functions
are taken. What an answer's own items hold beside that (ids, states, annotations) may come back and
changes nothing.
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from qwen_openai.errors import UnsupportedContent, UnsupportedParameter
from qwen_openai.protocol.messages import MAX_PARTS, CallId, FunctionName
from qwen_openai.protocol.shown import shown
from qwen_openai.protocol.tools import MAX_TOOLS
from qwen_openai.protocol.wire import Wire


class Part(Wire):
    """A piece of a message's or a result's text."""

    type: Literal["input_text", "output_text"]
    text: str


class ReasoningPart(Wire):
    """A piece of thoughts."""

    type: Literal["reasoning_text"]
    text: str


class SummaryPart(Wire):
    """A piece of what thoughts come to."""

    type: Literal["summary_text"]
    text: str


Parts = Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]


class MessageItem(Wire):
    """A message of any role but a tool's."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Parts


class CallItem(Wire):
    """A call that the assistant made; `arguments` is JSON text."""

    type: Literal["function_call"]
    call_id: CallId
    name: FunctionName
    arguments: str


class ResultItem(Wire):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: str | Parts


class ReasoningItem(Wire):
    """What the assistant thought before the items that follow."""

    type: Literal["reasoning"]
    summary: Annotated[list[SummaryPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    content: Annotated[list[ReasoningPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None = (
        None
    )


_TAGS = {
    "message": "MessageItem",
    "function_call": "CallItem",
    "function_call_output": "ResultItem",
    "reasoning": "ReasoningItem",
}


def _item_of(value: object) -> str:
    """Name the model for an item, as pydantic's tag; without a type it is a message."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return _TAGS.get(kind, "MessageItem") if isinstance(kind, str) else "MessageItem"


Item = Annotated[
    Annotated[MessageItem, Tag("MessageItem")]
    | Annotated[CallItem, Tag("CallItem")]
    | Annotated[ResultItem, Tag("ResultItem")]
    | Annotated[ReasoningItem, Tag("ReasoningItem")],
    Discriminator(_item_of),
]


class FunctionTool(Wire):
    """A function that the model may call; `strict` enforces its schema where it is true."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class FunctionChoice(Wire):
    """The one function to call."""

    type: Literal["function"]
    name: FunctionName


class AllowedChoice(Wire):
    """Some of the tools, and whether one of them must be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[
        list[FunctionChoice], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)
    ]


def _choice_of(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if kind == "allowed_tools":
        return "AllowedChoice"
    return "FunctionChoice" if kind is not None or isinstance(value, dict) else "Mode"


Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("Mode")]
    | Annotated[FunctionChoice, Tag("FunctionChoice")]
    | Annotated[AllowedChoice, Tag("AllowedChoice")],
    Discriminator(_choice_of),
]

_PARTS = f"a string or a list of 1 to {MAX_PARTS} text parts"
_NAME = "1 to 64 letters, digits, _ or -"
_ID = "a string of 1 to 512 characters"
_NAMED = 'an object like {"type": "function", "name": "..."}'

# What each place accepts, after "must be"; see `explain`.
ACCEPTS = {
    "input[]": 'an object like {"role": "user", "content": "..."}',
    "input[].role": '"user", "assistant", "system" or "developer"',
    "input[].content": _PARTS,
    "input[].content[]": 'an object like {"type": "input_text", "text": "..."}',
    "input[].content[].type": '"input_text" or "output_text" ("reasoning_text" in thoughts)',
    "input[].content[].text": "a string",
    "input[].call_id": _ID,
    "input[].name": _NAME,
    "input[].arguments": "a string, the JSON text of an object",
    "input[].output": _PARTS,
    "input[].output[]": 'an object like {"type": "input_text", "text": "..."}',
    "input[].output[].type": '"input_text"',
    "input[].output[].text": "a string",
    "input[].summary": "a list of summary_text parts",
    "input[].summary[]": 'an object like {"type": "summary_text", "text": "..."}',
    "input[].summary[].type": '"summary_text"',
    "input[].summary[].text": "a string",
    "tools[]": _NAMED,
    "tools[].name": _NAME,
    "tools[].description": "a string",
    "tools[].parameters": "an object, the JSON Schema of the arguments",
    "tools[].strict": "true or false",
    "tool_choice.type": '"function" or "allowed_tools"',
    "tool_choice.name": _NAME,
    "tool_choice.mode": '"auto" or "required"',
    "tool_choice.tools": f"a list of 1 to {MAX_TOOLS} functions",
    "tool_choice.tools[]": _NAMED,
    "tool_choice.tools[].type": '"function"',
    "tool_choice.tools[].name": _NAME,
}

# What an item may hold, by its type. Of it only what the models above have is read: the rest is of
# an answer's own items, or says what is plain without it.
_STATE = frozenset(("id", "type", "status"))
_MEMBERS = {
    "message": _STATE | {"role", "content"},
    "function_call": _STATE | {"call_id", "name", "arguments"},
    "function_call_output": _STATE | {"call_id", "name", "output"},
    "reasoning": _STATE | {"summary", "content", "encrypted_content"},
}
_PART = frozenset(("type", "text", "annotations", "logprobs"))
_NO_TEXT = frozenset(("input_image", "input_file", "input_audio", "input_video", "refusal"))
_TOOL = frozenset(FunctionTool.model_fields)


def refuse_items(items: object) -> None:
    """Refuse items, and parts of them, that are no text, in a body not yet validated.

    Raises UnsupportedContent naming the item or the part.
    """
    for index, item in enumerate(items if isinstance(items, list) else ()):
        kind = item.get("type") if isinstance(item, dict) else None
        if isinstance(kind, str) and kind not in _TAGS:
            hint = "; nothing is stored, send the item itself" if kind == "item_reference" else ""
            raise UnsupportedContent(
                f"input[{index}]: items of type {shown(kind)} are not supported{hint}.",
                param=f"input[{index}]",
            )
        for name in ("content", "output"):
            _refuse_parts(f"input[{index}].{name}", item.get(name) if isinstance(item, dict) else 0)


def _refuse_parts(place: str, parts: object) -> None:
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind in _NO_TEXT:
            raise UnsupportedContent(
                f"{place}[{index}]: parts of type {shown(kind)} are not supported; this server "
                "takes text only.",
                param=f"{place}[{index}]",
            )


def refuse_tools(tools: object) -> None:
    """Refuse tools that are no functions, in a body not yet validated: this server runs none.

    Raises UnsupportedParameter naming the tool.
    """
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            place = f"tools[{index}].type"
            raise UnsupportedParameter(
                f'{place} must be "function", got {shown(kind)}: this server has no tools of its '
                "own; functions are the caller's to run.",
                param=place,
            )


def ignored_members(body: dict[str, object]) -> set[str]:
    """Return dotted names of what valid items and tools, as they came, hold beyond the known."""
    found: set[str] = set()
    items, tools = body.get("input"), body.get("tools")
    for item in items if isinstance(items, list) else ():
        known = _MEMBERS[item.get("type") or "message"]
        found |= {f"input.{n}" for n, value in item.items() if n not in known and value is not None}
        for name in ("content", "output"):
            parts = item.get(name)
            for part in parts if isinstance(parts, list) else ():
                found |= {f"input.{name}.{extra}" for extra in part.keys() - _PART}
    for tool in tools if isinstance(tools, list) else ():
        found |= {f"tools.{n}" for n, value in tool.items() if n not in _TOOL and value is not None}
    return found
