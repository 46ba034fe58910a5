"""Calls of tools and their results in a conversation, checked the same for every family.

Pure; knows messages, not how any model is told of tools. Errors name the message as the caller
counted it, and the id.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import orjson

from qwen_openai.core import Message, ToolCall
from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.messages import FUNCTION_NAME
from qwen_openai.protocol.shown import shown

RESULTS_SORTED = "tool results put in the order of their calls"

# Names stand alone on a line of some prompts.
_NAME = re.compile(FUNCTION_NAME)


def results_of_calls(messages: Sequence[Message]) -> Mapping[int, tuple[str, ...]]:
    """Return, for the index of each assistant message with calls, the results in the order of its
    calls.

    Raises InvalidRequest for a result without a call, an unknown or repeated id, a call that is
    never answered, or one whose name or arguments are not what the specification asks for. An id
    may come again in a later assistant message: results belong to the message before them. System
    messages in between change nothing.
    """
    answered: dict[int, tuple[str, ...]] = {}
    asker = -1
    ids: Mapping[str, None] = {}
    given: dict[str, str] = {}
    for index, message in enumerate(messages):
        _check_members(index, message)
        if message.role == "tool":
            given[_called(index, message, ids, given)] = message.content
        elif message.role != "system":
            _close(answered, asker, ids, given)
            asker, ids, given = index, _ids(index, message), {}
    _close(answered, asker, ids, given)
    return answered


def in_order_of_calls(
    messages: Sequence[Message],
) -> tuple[list[Message], tuple[str, ...]]:
    """Return the messages with the results of each turn in the order of its calls, and what was
    changed to get there: templates write no ids, the order alone tells a model which is which.

    Raises as `results_of_calls`.
    """
    sorted_ = list(messages)
    for asker, results in results_of_calls(messages).items():
        place = asker
        for call, content in zip(messages[asker].tool_calls, results, strict=True):
            place += 1
            while messages[place].role != "tool":  # a system message in between
                place += 1
            sorted_[place] = replace(messages[place], content=content, tool_call_id=call.id)
    return sorted_, () if sorted_ == list(messages) else (RESULTS_SORTED,)


def _check_members(index: int, message: Message) -> None:
    if message.tool_calls and message.role != "assistant":
        raise InvalidRequest(
            f"messages[{index}].tool_calls: only an assistant message can call tools, "
            f"not a {message.role} message.",
            param=f"messages[{index}].tool_calls",
        )
    if message.tool_call_id is not None and message.role != "tool":
        raise InvalidRequest(
            f"messages[{index}].tool_call_id: only a tool message answers a call, "
            f"not a {message.role} message.",
            param=f"messages[{index}].tool_call_id",
        )


def _called(index: int, message: Message, ids: Mapping[str, None], given: Mapping[str, str]) -> str:
    """Return the id of the call that a result answers."""
    place, id = f"messages[{index}].tool_call_id", message.tool_call_id
    if id is None:
        wrong = "is required: the id of the call that this result answers"
    elif not ids:
        wrong = f"is {shown(id)}, but no assistant message with tool_calls comes right before"
    elif id not in ids:
        wrong = f"is {shown(id)}, which is no id of the assistant's calls before it"
    elif id in given:
        wrong = f"is {shown(id)}, a call that has its result already"
    else:
        return id
    raise InvalidRequest(f"{place} {wrong}.", param=place)


def _close(
    answered: dict[int, tuple[str, ...]],
    asker: int,
    ids: Mapping[str, None],
    given: Mapping[str, str],
) -> None:
    """Note the results of the last assistant message with calls; all must have come by now."""
    for number, id in enumerate(ids):
        if id not in given:
            place = f"messages[{asker}].tool_calls[{number}].id"
            raise InvalidRequest(
                f"{place}: the call {shown(id)} has no result; a tool message with this "
                "tool_call_id must follow, before any user or assistant message.",
                param=place,
            )
    if ids:
        answered[asker] = tuple(given[id] for id in ids)


def _ids(index: int, message: Message) -> Mapping[str, None]:
    seen: dict[str, None] = {}
    for number, call in enumerate(message.tool_calls):
        place = f"messages[{index}].tool_calls[{number}]"
        if not call.id or call.id in seen:
            raise InvalidRequest(
                f"{place}.id must be an id of its own, not empty, got {shown(call.id)}.",
                param=f"{place}.id",
            )
        check_called(f"{place}.function", call)
        seen[call.id] = None
    return seen


def check_called(place: str, call: ToolCall) -> None:
    """Refuse a call whose name is none, or whose arguments are not the JSON text of an object.
    Raises InvalidRequest with `place`, that of the function called."""
    if not _NAME.fullmatch(call.name):
        raise InvalidRequest(
            f"{place}.name (call {shown(call.id)}) must be 1 to 64 letters, digits, _ or -, "
            f"got {shown(call.name)}.",
            param=f"{place}.name",
        )
    try:
        arguments = orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(
            f"{place}.arguments (call {shown(call.id)}) must be the JSON text of an object, "
            f"got {shown(call.arguments)}.",
            param=f"{place}.arguments",
        )
