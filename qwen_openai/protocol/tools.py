"""The tools of a chat body: their wire models, their bounds, and what cannot be honoured yet.

Knows the wire only; `adapter.chat` makes core.Tool of them. Bounds: a schema is the caller's own
text, so it is never walked deeper, or kept longer, than stands here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import orjson
from pydantic import Field

from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.protocol.messages import FunctionName
from qwen_openai.protocol.shown import shown
from qwen_openai.protocol.wire import Wire

MAX_TOOLS = 128
MAX_DEPTH = 100
MAX_BYTES = 256 * 1024


class FunctionDefinition(Wire):
    """A function that the model may call; without `parameters` it takes none."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class ToolDefinition(Wire):
    """One tool; functions are the only type there is."""

    type: Literal["function"]
    function: FunctionDefinition


Tools = Annotated[
    list[ToolDefinition], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)
]  # fmt: skip
ToolChoice = Literal["none", "auto", "required"] | dict[str, object]

# What each place accepts, after "must be"; see `explain`.
ACCEPTS = {
    "tools[]": 'an object like {"type": "function", "function": {"name": "..."}}',
    "tools[].type": '"function"',
    "tools[].function": "an object with a name (functions are the only type of tool)",
    "tools[].function.name": "1 to 64 letters, digits, _ or -",
    "tools[].function.description": "a string",
    "tools[].function.parameters": "an object, the JSON Schema of the arguments",
    "tools[].function.strict": "true or false",
}

_TOOL = frozenset(("type", "function"))
_FUNCTION = frozenset(("name", "description", "parameters", "strict"))


def refuse_tools(body: Mapping[str, object]) -> None:
    """Refuse parameters for tools, for a model without them; the body is not yet validated.

    Raises UnsupportedParameter.
    """
    for name, harmless in (("tools", None), ("tool_choice", "none")):
        value = body.get(name)
        if value is not None and value != harmless:
            raise UnsupportedParameter(
                f"The parameter {name!r} is not supported by this model; leave it out.", param=name
            )


def check_tools(tools: Sequence[ToolDefinition] | None, choice: ToolChoice | None) -> None:
    """Refuse what the wire models cannot tell.

    Raises InvalidRequest for names that come twice, schemas beyond the bounds and a choice without
    tools, UnsupportedParameter for what would have to be enforced.
    """
    if tools is not None:
        _check_each(tools)
    if choice is None or choice == "none":
        return
    if tools is None:
        raise InvalidRequest("tool_choice is only allowed with tools.", param="tool_choice")
    if choice != "auto":
        what = choice if isinstance(choice, str) else choice.get("type")
        raise UnsupportedParameter(
            f"tool_choice {shown(what)} cannot be enforced for this model yet; "
            'send "auto" or "none".',
            param="tool_choice",
        )


def _check_each(tools: Iterable[ToolDefinition]) -> None:
    names: set[str] = set()
    size = 0
    for index, tool in enumerate(tools):
        function, place = tool.function, f"tools[{index}].function"
        if function.name in names:
            raise InvalidRequest(
                f"{place}.name: {shown(function.name)} is the name of another tool already.",
                param=f"{place}.name",
            )
        names.add(function.name)
        if function.strict:
            raise UnsupportedParameter(
                f"{place}.strict: true cannot be enforced for this model yet; leave it out.",
                param=f"{place}.strict",
            )
        parameters = function.parameters or {}
        if _too_deep(parameters):
            raise InvalidRequest(
                f"{place}.parameters holds more than {MAX_DEPTH} objects and lists in one another.",
                param=f"{place}.parameters",
            )
        size += len((function.description or "").encode()) + len(orjson.dumps(parameters))
        if size > MAX_BYTES:
            raise InvalidRequest(
                f"tools: descriptions and parameters together are longer than {MAX_BYTES} bytes.",
                param="tools",
            )


def _too_deep(value: object) -> bool:
    """Level by level, since the depth is the caller's and Python's own stack is not endless."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else _items(outer))
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def ignored_members(tools: object) -> set[str]:
    """Return dotted names of what valid tools, as they came, hold beyond what is read."""
    found: set[str] = set()
    for tool in tools if isinstance(tools, list) else ():
        found |= {f"tools.{name}" for name in tool.keys() - _TOOL}
        found |= {f"tools.function.{name}" for name in tool["function"].keys() - _FUNCTION}
    return found
