"""What a chat template does, found out once by trying it: thoughts, tools, calls.

Works on rendered text alone, with letters that no template writes by itself.
"""

import re
from dataclasses import dataclass

from qwen_openai.core import Thinking, ToolSyntax
from qwen_openai.errors import InvalidRequest, StartupError
from qwen_openai.prompting.template import ChatTemplate, Turn
from qwen_openai.prompting.turns import CLOSE, OPEN

# None of these letters touches a tag in what a template writes that takes thoughts out.
_THOUGHTS = f"{OPEN}kxq{CLOSE}vjq{CLOSE}zwq"
_TOUCHING = re.compile(r"<think>kxq|(?:kxq|vjq)</think>|</think>(?:vjq|zwq)")
_SWITCH = "enable_thinking"
_KEEP = "preserve_thinking"
_QUESTION: Turn = {"role": "user", "content": "q"}
_RESULT: Turn = {"role": "tool", "content": "r", "tool_call_id": "c"}
_CALLS: Turn = {
    "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "kxq", "arguments": {"vjq": "zwq"}}}
    ]
}
_SCHEMA = {"type": "object", "properties": {"vjq": {"type": "string", "description": "zwq"}}}
_TOOL = {
    "type": "function",
    "function": {"name": "kxq", "description": "zwq", "parameters": _SCHEMA},
}


@dataclass(frozen=True, slots=True)
class Facts:
    """``splits_thoughts`` and ``splits_before_calls``: an assistant's content loses its thoughts,
    by their tags, in a message without calls and in one with them."""

    splits_thoughts: bool
    splits_before_calls: bool
    tools: ToolSyntax | None
    thinking: Thinking


def probe(template: ChatTemplate, *, has_thoughts: bool) -> Facts:
    """Try ``template``; ``has_thoughts`` says that the vocabulary has the tags of thoughts.

    Raises StartupError when it fails on the simplest conversation.
    """
    try:
        plain = template.render([_QUESTION], generation_prompt=True)
        answer = {"role": "assistant", "content": _THOUGHTS}
        splits = not _lets_tags_through(template, answer)
    except InvalidRequest as exc:
        raise StartupError(
            f"The model's chat template fails on the simplest conversation: {exc.message}",
            fix="Use a model file with a working chat template.",
        ) from exc
    try:
        splits_before_calls = not _lets_tags_through(template, {**answer, **_CALLS}, _RESULT)
    except InvalidRequest:
        splits_before_calls = False
    return Facts(
        splits_thoughts=splits,
        splits_before_calls=splits_before_calls,
        tools=_syntax(template, plain),
        thinking=_thinking(template, plain) if has_thoughts else "never",
    )


def _lets_tags_through(template: ChatTemplate, *answer: Turn) -> bool:
    """Tell whether a tag of the answer's content reaches the prompt as its own, in any place."""
    options = [{}, {_KEEP: True}, {_KEEP: False}] if _KEEP in template.variables else [{}]
    rendered = ""
    for option in options:
        history = [_QUESTION, *answer]
        rendered += template.render(history * 2, generation_prompt=False, options=option)
        rendered += template.render([*history, _QUESTION], generation_prompt=True, options=option)
    return _TOUCHING.search(rendered) is not None


def _syntax(template: ChatTemplate, plain: str) -> ToolSyntax | None:
    try:
        told = template.render([_QUESTION], generation_prompt=True, tools=[_TOOL])
    except InvalidRequest:
        return None
    if told == plain:
        return None
    try:
        answer: Turn = {"role": "assistant", "content": "", **_CALLS}
        told += template.render([_QUESTION, answer, _RESULT], generation_prompt=True, tools=[_TOOL])
    except InvalidRequest:
        return None
    if "<function=" in told:
        return "xml"
    return "hermes" if "<tool_call>" in told and '"arguments"' in told else None


def _thinking(template: ChatTemplate, plain: str) -> Thinking:
    if _SWITCH not in template.variables:
        return "always" if _opens_thought(plain) else "never"
    for is_on in (True, False):
        try:
            option = {_SWITCH: is_on}
            rendered = template.render([_QUESTION], generation_prompt=True, options=option)
        except InvalidRequest:
            return "switched"
        if not _opens_thought(rendered):
            return "switched"
    return "always" if _opens_thought(plain) else "switched"


def _opens_thought(rendered: str) -> bool:
    return rendered.rstrip().endswith(OPEN)
