"""The messages of a chat body: their wire models, and what those cannot say by themselves.

Knows the wire only. Which calls and results belong together is `adapter.tools`'s to check.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.shown import shown
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
    """What an assistant called; `arguments` is JSON text. Also the older form of a call."""

    name: FunctionName
    arguments: str


class CalledTool(Wire):
    """One call of an earlier assistant message."""

    id: CallId
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Wire):
    """One message. `name` is that of the function that a `function` message is the result of;
    names of participants and other members are reported as ignored. `function_call` is the older
    form of one call. Thoughts of an assistant come under either of two names."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: (
        str
        | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]
        | None
    ) = None
    tool_calls: Annotated[list[CalledTool], Field(max_length=MAX_CALLS, fail_fast=True)] | None = (
        None
    )
    tool_call_id: CallId | None = None
    function_call: CalledFunction | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


PARTS = f"a string or a list of 1 to {MAX_PARTS} text parts"

# What each place accepts, after "must be"; see `explain`.
ACCEPTS = {
    "messages[]": "an object with role and content",
    "messages[].role": '"system", "developer", "user", "assistant", "tool" or "function"',
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
    "messages[].function_call": "an object with name and arguments",
    "messages[].function_call.name": "1 to 64 letters, digits, _ or -",
    "messages[].function_call.arguments": "a string, the JSON text of an object",
    "messages[].name": "a string",
    "messages[].reasoning_content": "a string",
    "messages[].reasoning": "a string",
}

# What is read of a message, by its role.
_ANY = frozenset(("role", "content", "tool_calls", "tool_call_id", "function_call"))
_MESSAGE = {"assistant": _ANY | {"reasoning_content", "reasoning"}, "function": _ANY | {"name"}}
_PART = frozenset(("type", "text"))
_CALL = frozenset(("id", "type", "function"))
_CALLED = frozenset(("name", "arguments"))
_NAME = re.compile(FUNCTION_NAME)


def check_messages(messages: Iterable[ChatMessage]) -> None:
    """Refuse messages without content, and members that the role does not have.

    Raises InvalidRequest.
    """
    for index, message in enumerate(messages):
        if message.role == "assistant":
            if message.content is None and not _has_no_need_of_content(message):
                raise _no_content(index)
            if message.tool_calls and message.function_call is not None:
                raise InvalidRequest(
                    f"messages[{index}].function_call and tool_calls exclude each other.",
                    param=f"messages[{index}].function_call",
                )
            continue
        if message.content is None:
            raise _no_content(index)
        if message.function_call is not None:
            raise InvalidRequest(
                f"messages[{index}].function_call: only an assistant message can call functions, "
                f"not a {message.role} message.",
                param=f"messages[{index}].function_call",
            )
        if message.role == "function":
            _check_result(index, message)


def _has_no_need_of_content(message: ChatMessage) -> bool:
    # Thoughts alone are what is left of an answer that was cut while the model thought.
    thoughts = message.reasoning_content or message.reasoning
    return bool(message.tool_calls or message.function_call is not None or thoughts)


def _no_content(index: int) -> InvalidRequest:
    place = f"messages[{index}].content"
    return InvalidRequest(
        f"{place} must be {PARTS}; only an assistant message with calls or thoughts may have none "
        "or null.",
        param=place,
    )


def _check_result(index: int, message: ChatMessage) -> None:
    place = f"messages[{index}].name"
    if message.name is None:
        raise InvalidRequest(
            f"{place} is required: the name of the function that this is the result of.",
            param=place,
        )
    if not _NAME.fullmatch(message.name):
        raise InvalidRequest(
            f"{place} must be 1 to 64 letters, digits, _ or -, got {shown(message.name)}.",
            param=place,
        )


def ignored_members(messages: object) -> set[str]:
    """Return dotted names of what valid messages, as they came, hold beyond what is read."""
    found: set[str] = set()
    assert isinstance(messages, list)  # noqa: S101  # validated; tells the type checker
    for message in messages:
        if len(message) == 2 and isinstance(message.get("content"), str):
            continue  # role and content
        found |= _extras("messages", message, _MESSAGE.get(message["role"], _ANY))
        if isinstance(message.get("content"), list):
            for part in message["content"]:
                found |= _extras("messages.content", part, _PART, nulls=True)
        if message.get("function_call") is not None:
            found |= _extras("messages.function_call", message["function_call"], _CALLED)
        for call in message.get("tool_calls") or ():
            found |= _extras("messages.tool_calls", call, _CALL)
            found |= _extras("messages.tool_calls.function", call["function"], _CALLED)
    return found


def _extras(
    prefix: str, came: Mapping[str, object], members: Collection[str], *, nulls: bool = False
) -> set[str]:
    """Return the names of other members. Null and [] ask for nothing, unless `nulls` count."""
    if all(name in members for name in came):
        return set()
    return {
        f"{prefix}.{name}"
        for name, value in came.items()
        if name not in members and (nulls or (value is not None and value != []))
    }
