"""The tools of a chat body: their wire models, their bounds, and which of them may be called.

Knows the wire only; `adapter.chat` makes core.Tool of them, and says whether the model can do it.
`functions` and `function_call` are the older form of `tools` and `tool_choice`.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.messages import FunctionName
from qwen_openai.protocol.schemas import MAX_BYTES, schema_size
from qwen_openai.protocol.shown import shown
from qwen_openai.protocol.wire import Wire

MAX_TOOLS = 128


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


class NamedFunction(Wire):
    """Which function."""

    name: FunctionName


class FunctionCallName(Wire):
    """The one function to call, in the older form."""

    name: FunctionName


class NamedChoice(Wire):
    """The one function to call."""

    type: Literal["function"]
    function: NamedFunction


class AllowedList(Wire):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedChoice], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class AllowedTools(Wire):
    """The tools that may be called, of all that the model is told of."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedList


def _choice_of(value: object) -> str:
    """Name the model for a choice, as pydantic's tag; what is no known object is a mode."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if kind == "allowed_tools":
        return "AllowedTools"
    return "NamedChoice" if kind is not None or isinstance(value, dict) else "Mode"


Tools = Annotated[
    list[ToolDefinition], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)
]  # fmt: skip
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("Mode")]
    | Annotated[NamedChoice, Tag("NamedChoice")]
    | Annotated[AllowedTools, Tag("AllowedTools")],
    Discriminator(_choice_of),
]
Functions = Annotated[
    list[FunctionDefinition], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)
]
FunctionCall = Literal["none", "auto"] | FunctionCallName


class ToolFields(Wire):
    """The parameters for tools; None is "not given"."""

    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Functions | None = None
    function_call: FunctionCall | None = None

    @property
    def call_is_required(self) -> bool:
        """Whether the answer must be a call."""
        choice = self.tool_choice
        if isinstance(choice, AllowedTools):
            return choice.allowed_tools.mode == "required"
        forced = choice == "required" or isinstance(choice, NamedChoice)
        return forced or isinstance(self.function_call, FunctionCallName)

    @property
    def call_is_strict(self) -> bool:
        """Whether a call, if there is one, must match a schema to the letter."""
        told = self.tools is not None and self.tool_choice != "none"
        legacy = self.functions is not None and self.function_call != "none"
        return (told and any(tool.function.strict for tool in self.tools or ())) or (
            legacy and any(function.strict for function in self.functions or ())
        )


_NAME = "1 to 64 letters, digits, _ or -"
_SCHEMA = "an object, the JSON Schema of the arguments"
_NAMED = 'an object like {"type": "function", "function": {"name": "..."}}'

# What each place accepts, after "must be"; see `explain`.
ACCEPTS = {
    "tools[]": _NAMED,
    "tools[].type": '"function", the only type of tool',
    "tools[].function": "an object with a name",
    "tools[].function.name": _NAME,
    "tools[].function.description": "a string",
    "tools[].function.parameters": _SCHEMA,
    "tools[].function.strict": "true or false",
    "tool_choice.type": '"function" or "allowed_tools"',
    "tool_choice.function": "an object with a name",
    "tool_choice.function.name": _NAME,
    "tool_choice.allowed_tools": "an object with mode and tools",
    "tool_choice.allowed_tools.mode": '"auto" or "required"',
    "tool_choice.allowed_tools.tools": f"a list of 1 to {MAX_TOOLS} functions",
    "tool_choice.allowed_tools.tools[]": _NAMED,
    "tool_choice.allowed_tools.tools[].type": '"function"',
    "tool_choice.allowed_tools.tools[].function": "an object with a name",
    "tool_choice.allowed_tools.tools[].function.name": _NAME,
    "functions[]": 'an object like {"name": "..."}',
    "functions[].name": _NAME,
    "functions[].description": "a string",
    "functions[].parameters": _SCHEMA,
    "functions[].strict": "true or false",
    "function_call.name": _NAME,
}

_TOOL = frozenset(ToolDefinition.model_fields)
_FUNCTION = frozenset(FunctionDefinition.model_fields)


def check_tools(request: ToolFields) -> None:
    """Refuse what the wire models cannot tell.

    Raises InvalidRequest for names that come twice, schemas beyond the bounds, both forms at once,
    and a choice of what is not there.
    """
    if request.tools is not None and request.functions is not None:
        raise InvalidRequest(
            "functions and tools exclude each other; functions is the older form of tools.",
            param="functions",
        )
    if request.tools is not None:
        functions = [tool.function for tool in request.tools]
        _check_each(functions, "tools", ".function")
        _check_choice(request.tool_choice, {function.name for function in functions})
    elif request.tool_choice not in (None, "none"):
        raise InvalidRequest("tool_choice is only allowed with tools.", param="tool_choice")
    if request.functions is not None:
        _check_each(request.functions, "functions", "")
        if isinstance(request.function_call, FunctionCallName):
            names = {function.name for function in request.functions}
            _check_known(request.function_call.name, names, "function_call", "functions")
    elif request.function_call not in (None, "none"):
        raise InvalidRequest("function_call is only allowed with functions.", param="function_call")


def _check_each(functions: Iterable[FunctionDefinition], member: str, inner: str) -> None:
    names: set[str] = set()
    size = 0
    for index, function in enumerate(functions):
        place = f"{member}[{index}]{inner}"
        if function.name in names:
            raise InvalidRequest(
                f"{place}.name: {shown(function.name)} is the name of another one already.",
                param=f"{place}.name",
            )
        names.add(function.name)
        size += len((function.description or "").encode())
        size += schema_size(function.parameters or {}, f"{place}.parameters")
        if size > MAX_BYTES:
            raise InvalidRequest(
                f"{member}: descriptions and parameters together are longer than {MAX_BYTES} "
                "bytes.",
                param=member,
            )


def _check_choice(choice: ToolChoice | None, names: set[str]) -> None:
    named: Sequence[NamedChoice] = ()
    if isinstance(choice, NamedChoice):
        named = (choice,)
    elif isinstance(choice, AllowedTools):
        named = choice.allowed_tools.tools
    for each in named:
        _check_known(each.function.name, names, "tool_choice", "tools")


def _check_known(name: str, names: set[str], param: str, member: str) -> None:
    if name not in names:
        raise InvalidRequest(
            f"{param} names {shown(name)}, which is not among {member}.", param=param
        )


def ignored_members(body: dict[str, object]) -> set[str]:
    """Return dotted names of what valid tools, as they came, hold beyond what is read."""
    found: set[str] = set()
    tools, functions = body.get("tools"), body.get("functions")
    for tool in tools if isinstance(tools, list) else ():
        found |= {f"tools.{name}" for name in tool.keys() - _TOOL}
        found |= {f"tools.function.{name}" for name in tool["function"].keys() - _FUNCTION}
    for function in functions if isinstance(functions, list) else ():
        found |= {f"functions.{name}" for name in function.keys() - _FUNCTION}
    return found
