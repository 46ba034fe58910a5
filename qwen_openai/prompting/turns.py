"""Messages and tools as a chat template takes them, every caller's string in them inert.

Shapes are those of the chat completions API, with what templates stumble over put right: contents
are always text, a call's arguments always an object. Knows the exchange, not the template.
"""

import json
import re

from qwen_openai.core import Message, Tool, ToolCall
from qwen_openai.errors import InvalidRequest
from qwen_openai.prompting.inert import Inert

OPEN, CLOSE = "<think>", "</think>"
_THINK_TAG = re.compile(f"({OPEN}|{CLOSE})")


def turn_of(message: Message, inert: Inert, *, splits_thoughts: bool) -> dict[str, object]:
    """Return a message for the template.

    With ``splits_thoughts``, an assistant's content keeps the tags of thoughts that the template
    takes out by them; it does not do so where it is given the thoughts apart. Raises InvalidRequest
    for text that is no valid Unicode, and for arguments that are no JSON object.
    """
    turn: dict[str, object] = {"role": message.role, "content": inert.cover(message.content)}
    if message.role == "assistant" and message.reasoning is None and splits_thoughts:
        turn["content"] = _with_tags(message.content, inert)
    if message.reasoning is not None:
        reasoning = inert.cover(message.reasoning)
        # Both names, as transformers gives them: templates read one or the other.
        turn |= {"reasoning_content": reasoning, "thinking": reasoning}
    if message.tool_calls:
        turn["tool_calls"] = [_call(call, inert) for call in message.tool_calls]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = inert.cover(message.tool_call_id)
    return turn


def tool_of(tool: Tool, inert: Inert) -> dict[str, object]:
    """Return a tool for the template; what the tool has not is left out. Raises InvalidRequest."""
    function: dict[str, object] = {"name": inert.cover(tool.name, "tools")}
    if tool.description:
        function["description"] = inert.cover(tool.description, "tools")
    if tool.parameters is not None:
        function["parameters"] = covered(tool.parameters, inert, "tools")
    return {"type": "function", "function": function}


def covered(value: object, inert: Inert, param: str) -> object:
    """Return a JSON value in which all strings and keys are covered. Raises InvalidRequest, naming
    ``param``, for one that is too deep or holds text that is no valid Unicode."""
    try:
        return _covered(value, inert, param)
    except RecursionError:
        raise InvalidRequest(
            f"A value in {param} is nested too deeply. Make it flatter.", param=param
        ) from None


def _covered(value: object, inert: Inert, param: str) -> object:
    if isinstance(value, str):
        return inert.cover(value, param)
    if isinstance(value, dict):
        return {
            inert.cover(str(key), param): _covered(item, inert, param)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_covered(item, inert, param) for item in value]
    return value


def _call(call: ToolCall, inert: Inert) -> dict[str, object]:
    function = {
        "name": inert.cover(call.name),
        "arguments": covered(_arguments(call), inert, "messages"),
    }
    return {"id": inert.cover(call.id), "type": "function", "function": function}


def _arguments(call: ToolCall) -> dict[str, object]:
    """Return a call's arguments as an object: templates write them anew, some as a text in a text
    where they are not, and some fail."""
    if not call.arguments.strip():
        return {}
    try:
        # Models write line ends in strings as they are; that does no harm here.
        value = json.loads(call.arguments, strict=False)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"The arguments of an earlier call of {call.name[:64]!r} are no JSON object. Send them"
            ' as the model wrote them, as a string such as \'{"city": "Paris"}\'.',
            param="messages",
        )
    return value


def _with_tags(text: str, inert: Inert) -> str:
    """Cover a text, but for the tags of thoughts in front of its last closing one."""
    if CLOSE not in text:
        return inert.cover(text)
    thoughts, _, answer = text.rpartition(CLOSE)
    parts = _THINK_TAG.split(thoughts)
    kept = [part if n % 2 else inert.cover(part) for n, part in enumerate(parts)]
    return "".join(kept) + CLOSE + inert.cover(answer)
