"""The messages of a chat body: their wire models, and what those cannot say by themselves.

Knows the wire only. Which calls and results belong together is `adapter.tools`'s to check.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.protocol.wire import Wire

MAX_PARTS = 2048
MAX_CALLS = 128

# OpenAI's specification 2.3.0: FunctionObject.name.
FUNCTION_NAME = r"^[a-zA-Z0-9_-]{1,64}$"
FunctionName = Annotated[str, Field(pattern=FUNCTION_NAME)]
CallId = Annotated[str, Field(min_length=1, max_length=512)]


class TextPart(Wire):
    """One part of a message's content; text is the only type there is yet."""

    type: Literal["text"]
    text: str


class CalledFunction(Wire):
    """What an assistant called; `arguments` is JSON text."""

    name: FunctionName
    arguments: str


class CalledTool(Wire):
    """One call of an earlier assistant message."""

    id: CallId
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Wire):
    """One message. Names of participants and other members are reported as ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: (
        str
        | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]
        | None
    ) = None
    tool_calls: Annotated[list[CalledTool], Field(max_length=MAX_CALLS, fail_fast=True)] | None = (
        None
    )
    tool_call_id: CallId | None = None


PARTS = f"a string or a list of 1 to {MAX_PARTS} text parts"

# What each place accepts, after "must be"; see `explain`.
ACCEPTS = {
    "messages[]": "an object with role and content",
    "messages[].role": '"system", "developer", "user", "assistant" or "tool"',
    "messages[].content": PARTS,
    "messages[].content[]": 'an object like {"type": "text", "text": "..."}',
    "messages[].content[].type": '"text"',
    "messages[].content[].text": "a string",
    "messages[].tool_calls": f"a list of at most {MAX_CALLS} calls",
    "messages[].tool_calls[]": "an object with id, type and function",
    "messages[].tool_calls[].id": "a string of 1 to 512 characters",
    "messages[].tool_calls[].type": '"function"',
    "messages[].tool_calls[].function": "an object with name and arguments",
    "messages[].tool_calls[].function.name": "1 to 64 letters, digits, _ or -",
    "messages[].tool_calls[].function.arguments": "a string, the JSON text of an object",
    "messages[].tool_call_id": "a string of 1 to 512 characters",
}

_MESSAGE = frozenset(("role", "content", "tool_calls", "tool_call_id"))
_PART = frozenset(("type", "text"))
_CALL = frozenset(("id", "type", "function"))
_CALLED = frozenset(("name", "arguments"))


def check_messages(messages: Iterable[ChatMessage]) -> None:
    """Refuse messages without content. Raises InvalidRequest."""
    for index, message in enumerate(messages):
        if message.content is None and not (message.role == "assistant" and message.tool_calls):
            place = f"messages[{index}].content"
            raise InvalidRequest(
                f"{place} must be {PARTS}; only an assistant message with tool_calls may have none "
                "or null.",
                param=place,
            )


def ignored_members(messages: object) -> set[str]:
    """Return dotted names of what valid messages, as they came, hold beyond what is read."""
    found: set[str] = set()
    assert isinstance(messages, list)  # noqa: S101  # validated; tells the type checker
    for message in messages:
        if len(message) == 2 and isinstance(message.get("content"), str):
            continue  # role and content
        found |= _extras("messages", message, _MESSAGE)
        if isinstance(message.get("content"), list):
            for part in message["content"]:
                found |= _extras("messages.content", part, _PART, nulls=True)
        for call in message.get("tool_calls") or ():
            found |= _extras("messages.tool_calls", call, _CALL)
            found |= _extras("messages.tool_calls.function", call["function"], _CALLED)
    return found


def refuse_calls(messages: object, *, tools: bool) -> None:
    """Refuse the older form of calls and results, and every form for a model without `tools`, in
    messages not yet validated.

    Raises InvalidRequest for a role, UnsupportedParameter for a member.
    """
    if tools:
        roles: tuple[str, ...] = ("function",)
        members = frozenset(("function_call",))
        why = "the older form of calling tools, which this version does not support; use tool_calls"
    else:
        roles = ("tool", "function")
        members = frozenset(("tool_calls", "tool_call_id", "function_call"))
        why = "for calling tools, which this model does not support"
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if not isinstance(message, dict):
            continue
        if message.get("role") in roles:
            place = f"messages[{index}].role"
            raise InvalidRequest(f"{place}: the role {message['role']} is {why}.", param=place)
        for name in sorted(members & message.keys()):
            if message.get(name) not in (None, []):
                place = f"messages[{index}].{name}"
                raise UnsupportedParameter(f"{place} is {why}.", param=place)


def _extras(
    prefix: str, came: Mapping[str, object], members: frozenset[str], *, nulls: bool = False
) -> set[str]:
    """Return the names of other members. Null and [] ask for nothing, unless `nulls` count."""
    if came.keys() <= members:
        return set()
    return {
        f"{prefix}.{name}"
        for name, value in came.items()
        if name not in members and (nulls or (value is not None and value != []))
    }
