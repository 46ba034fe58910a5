"""The messages of a chat request as core.Message: roles, joined parts, the older form of calls.

Pure; knows no model. Places in errors are those of the caller's own list, so whatever looks at
messages does so before any of them is moved or merged.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from qwen_openai.adapter.history import SEPARATOR, SYSTEM_MOVED, SYSTEMS_MERGED
from qwen_openai.adapter.tools import check_called
from qwen_openai.core import Message, Role, ToolCall
from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.messages import ChatMessage
from qwen_openai.protocol.shown import shown

# Between the text parts of one message, as vLLM joins them for models that take plain text.
PART_SEPARATOR = "\n"

_ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "system": "system",
        "developer": "system",
        "user": "user",
        "assistant": "assistant",
        "tool": "tool",
        "function": "tool",
    }
)


def conversation(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return the messages, one for each, in their order.

    A call in the older form (`function_call`) gets an id made of its place, the same in every
    request of a conversation, and its result (role `function`) becomes a tool message with that id.
    Raises InvalidRequest for such a result without its call, and a call without its result.
    """
    made: list[Message] = []
    asked: tuple[int, str] | None = None
    for index, message in enumerate(messages):
        if message.role == "function":
            made.append(_result(index, message, asked))
            asked = None
            continue
        if asked is not None and message.role not in ("system", "developer"):
            raise _unanswered(asked)
        made.append(_message(index, message))
        if message.function_call is not None:
            asked = (index, message.function_call.name)
    if asked is not None:
        raise _unanswered(asked)
    return made


def one_leading_system(messages: list[Message]) -> tuple[list[Message], tuple[str, ...]]:
    """Qwen's templates take one system message, first. Return messages of that form, and what was
    changed to get there."""
    places = [index for index, message in enumerate(messages) if message.role == "system"]
    if not places or places == [0]:
        return messages, ()
    system = SEPARATOR.join(messages[index].content for index in places)
    rest = [message for message in messages if message.role != "system"]
    change = SYSTEM_MOVED if len(places) == 1 else SYSTEMS_MERGED
    return [Message("system", system), *rest], (change,)


def _message(index: int, message: ChatMessage) -> Message:
    calls = [
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
    ]
    if message.function_call is not None:
        function = message.function_call
        call = ToolCall(_id(index), function.name, function.arguments)
        check_called(f"messages[{index}].function_call", call)
        calls.append(call)
    return Message(
        role=_ROLES[message.role],
        content=_text(message),
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id,
        reasoning=_reasoning(message),
    )


def _reasoning(message: ChatMessage) -> str | None:
    if message.role != "assistant":
        return None
    return message.reasoning_content or message.reasoning


def _text(message: ChatMessage) -> str:
    content = message.content or ""
    if isinstance(content, str):
        return content
    return PART_SEPARATOR.join(part.text for part in content)


def _result(index: int, message: ChatMessage, asked: tuple[int, str] | None) -> Message:
    if asked is None or message.name != asked[1]:
        place = f"messages[{index}].name"
        what = "no function_call comes" if asked is None else f"{shown(asked[1])} was called"
        raise InvalidRequest(
            f"{place}: {what} right before this result of {shown(message.name)}.", param=place
        )
    return Message("tool", _text(message), tool_call_id=_id(asked[0]))


def _id(index: int) -> str:
    return f"call_{index}"


def _unanswered(asked: tuple[int, str]) -> InvalidRequest:
    place = f"messages[{asked[0]}].function_call"
    return InvalidRequest(
        f"{place}: the call of {shown(asked[1])} has no result; a message with the role function "
        "and this name must follow, before any user or assistant message.",
        param=place,
    )
