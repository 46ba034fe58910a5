"""Random chat requests: the same one as Hugging Face takes it and as a Job has it.

Seeded, so that a failing number can be looked at again. Nothing hostile: no text holds a control
token, though many hold pieces of one.
"""

import json
import random
from dataclasses import dataclass

from qwen_openai.core import Message, TemplateValue, Tool, ToolCall
from qwen_openai.prompting.renderer import Around

_FRAGMENTS = (
    *("hello", " world", "The", " 123", "4567", "你好", "世界", "é", "e\u0301", "가\u1100\u1161"),
    *("\n", "\n\n", " ", "  ", "\t", "\r\n", "\u00a0", "\u200d", "😀", "👩\u200d👩", "ſ", "\u212a"),
    *("'s", ",", "。", '"', "\\", "\\n", "{", "}", "{{ x }}", "{% y %}", "a < b", "x > y", "<"),
    *("<tool", "<b>", "</a>", "|im|", "im_end", "/no_think", "think", "tool_call", "$&", "\x7f"),
)
_WORDS = ("city", "name", "type", "größe", "数", "a b", "x-y", "$ref", "items", "", "n", "<t>")
_TYPES = ("string", "number", "integer", "boolean", "null")


@dataclass(frozen=True, slots=True)
class Request:
    """``turns`` and ``tools`` in OpenAI's shape, arguments as objects; ``options`` by name."""

    turns: list[dict[str, object]]
    tools: list[dict[str, object]]
    options: dict[str, TemplateValue]
    continues: bool
    messages: list[Message]
    around: Around


class Maker:
    """Makes requests from one seed. ``tags``: assistants' contents may begin with tagged thoughts;
    ``options`` are the values that further variables of the template may have."""

    def __init__(
        self, seed: int, *, tags: bool, options: dict[str, tuple[TemplateValue, ...]]
    ) -> None:
        self._random = random.Random(seed)
        self._tags = tags
        self._options = options

    def request(self) -> Request:
        turns: list[dict[str, object]] = []
        messages: list[Message] = []
        if self._chance(0.5):
            self._add(turns, messages, Message("system", self._text()))
        for _ in range(self._random.randint(1, 3)):
            self._add(turns, messages, Message("user", self._text()))
            self._answers(turns, messages)
        last = messages[-1]
        # transformers refuses to continue a content out of which the template takes thoughts.
        may_continue = last.role == "assistant" and "</think>" not in last.content
        continues = may_continue and not last.tool_calls and self._chance(0.5)
        if last.role == "assistant" and not continues and self._chance(0.5):
            self._add(turns, messages, Message("user", self._text()))
        options = {
            name: self._random.choice(values)
            for name, values in self._options.items()
            if self._chance(0.6)
        }
        tools = self._tools() if self._chance(0.5) else []
        return Request(
            turns=turns,
            tools=[_openai_tool(tool) for tool in tools],
            options=options,
            continues=continues,
            messages=messages,
            around=Around(tuple(tools), None, tuple(options.items())),
        )

    def _answers(self, turns: list[dict[str, object]], messages: list[Message]) -> None:
        """Append what may follow a user's message: answers, calls with their results, nothing."""
        for _ in range(self._random.randint(0, 2)):
            calls = self._calls() if self._chance(0.5) else ()
            reasoning = self._text() if self._chance(0.3) else None
            content = "" if calls and self._chance(0.5) else self._text() + "."
            if self._tags and reasoning is None and self._chance(0.3):
                content = f"<think>\n{self._text()}\n</think>\n\n{content}"
            answer = Message("assistant", content, calls, reasoning=reasoning)
            self._add(turns, messages, answer)
            for call in calls:
                result = Message("tool", self._text(), tool_call_id=call.id)
                self._add(turns, messages, result)

    def _add(
        self, turns: list[dict[str, object]], messages: list[Message], message: Message
    ) -> None:
        messages.append(message)
        turns.append(openai_turn(message))

    def _calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(f"call_{n}", self._name(), json.dumps(self._object(0), ensure_ascii=False))
            for n in range(self._random.randint(1, 3))
        )

    def _tools(self) -> list[Tool]:
        return [
            Tool(
                self._name(),
                self._text() if self._chance(0.8) else "",
                self._schema(0) if self._chance(0.8) else None,
            )
            for _ in range(self._random.randint(1, 3))
        ]

    def _schema(self, depth: int) -> dict[str, object]:
        kind = self._random.choice(("object", "array", "enum", "any", *_TYPES))
        schema: dict[str, object] = {"type": kind}
        if depth == 0 or (kind == "object" and depth < 3):
            keys = [self._key() for _ in range(self._random.randint(0, 3))]
            properties = {key: self._schema(depth + 1) for key in keys}
            schema = {"type": "object", "properties": properties, "required": keys}
        elif kind == "array" and depth < 3:
            schema["items"] = self._schema(depth + 1)
        elif kind == "enum":
            schema = {"enum": [self._value(3) for _ in range(3)]}
        elif kind == "any":
            schema = {"anyOf": [{"type": "string"}, {"type": ["number", "null"]}]}
        if self._chance(0.4):
            schema["description"] = self._text()
        if self._chance(0.1):
            schema["additionalProperties"] = False
        return schema

    def _object(self, depth: int) -> dict[str, object]:
        return {self._key(): self._value(depth) for _ in range(self._random.randint(0, 3))}

    def _value(self, depth: int) -> object:
        kind = self._random.randint(0, 7 if depth < 3 else 5)
        if kind < 2:
            return self._text()
        if kind < 4:
            return self._random.choice((0, -1, 1.5, 1e20, 10**20, 0.1, 3.0))
        if kind < 6:
            return self._random.choice((True, False, None))
        if kind == 6:
            return [self._value(depth + 1) for _ in range(self._random.randint(0, 3))]
        return self._object(depth + 1)

    def _key(self) -> str:
        return self._random.choice(_WORDS)

    def _name(self) -> str:
        return self._random.choice(("get_weather", "f", "read-file", "A1", "tool_call", "think"))

    def _text(self) -> str:
        return "".join(self._random.choices(_FRAGMENTS, k=self._random.randint(0, 6)))

    def _chance(self, share: float) -> bool:
        return self._random.random() < share


def openai_turn(message: Message) -> dict[str, object]:
    """A message as a client would give it to `apply_chat_template`."""
    turn: dict[str, object] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _openai_tool(tool: Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    return {"type": "function", "function": function}
