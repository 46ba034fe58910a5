"""Events to the bodies and chunks of chat completions: sole owner of their shape.

Knows OpenAI's wire (specification 2.3.0: CreateChatCompletionResponse and
CreateChatCompletionStreamResponse), no HTTP: `sse` frames the chunks, routes send them.
"""

from qwen_openai.core import (
    Event,
    Finish,
    FinishReason,
    Text,
    ToolCallArguments,
    ToolCallStart,
    Usage,
)
from qwen_openai.errors import EngineFailed
from qwen_openai.responses.fold import Fold, FoldedChoice


class ChatReply:
    """One request's identity on the wire: the same id, time and model in all its chunks."""

    __slots__ = ("_created", "_id", "_include_usage", "_model", "_n")

    def __init__(self, *, id: str, model: str, created: int, n: int, include_usage: bool) -> None:
        """`created` is Unix time in seconds. With `include_usage` a stream ends with a usage chunk,
        and its other chunks say `usage: null`."""
        self._id = id
        self._model = model
        self._created = created
        self._n = n
        self._include_usage = include_usage

    def opening(self) -> list[dict[str, object]]:
        """Return the chunk of each choice that names its role, index ascending. The role is in no
        other chunk: the openai SDK's stream helper would concatenate it."""
        return [
            self._delta(index, {"role": "assistant", "content": ""}, None)
            for index in range(self._n)
        ]

    def chunk(self, event: Event) -> dict[str, object] | None:
        """Return an event's chunk, None for events that clients do not see."""
        if isinstance(event, Text):
            return self._delta(event.index, {"content": event.text}, None) if event.text else None
        if isinstance(event, ToolCallStart):
            function = {"name": event.name, "arguments": ""}
            call = {"index": event.call, "id": event.id, "type": "function", "function": function}
            return self._delta(event.index, {"tool_calls": [call]}, None)
        if isinstance(event, ToolCallArguments):
            # Nothing but the arguments: clients concatenate whatever comes a second time.
            call = {"index": event.call, "function": {"arguments": event.text}}
            return self._delta(event.index, {"tool_calls": [call]}, None)
        if isinstance(event, Finish):
            return self._delta(event.index, {}, event.reason)
        return None

    def closing(self, usage: Usage) -> list[dict[str, object]]:
        """Return what comes after the last choice: the usage chunk, if it was asked for."""
        return [self._chunk([], usage_object(usage))] if self._include_usage else []

    def body(self, fold: Fold) -> dict[str, object]:
        """Return the plain answer. Raises EngineFailed if a choice never finished."""
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [_choice(index, choice) for index, choice in enumerate(fold.choices)],
            "usage": usage_object(fold.usage),
        }

    def _delta(
        self, index: int, delta: dict[str, object], reason: FinishReason | None
    ) -> dict[str, object]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._chunk([choice], None)

    def _chunk(
        self, choices: list[dict[str, object]], usage: dict[str, object] | None
    ) -> dict[str, object]:
        chunk: dict[str, object] = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        if self._include_usage:
            chunk["usage"] = usage
        return chunk


def _choice(index: int, choice: FoldedChoice) -> dict[str, object]:
    if choice.reason is None:
        raise EngineFailed("The engine stopped before the answer was finished; try again.")
    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in choice.tool_calls
    ]
    content = None if calls and not choice.text else choice.text
    message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": choice.reason,
    }


def usage_object(usage: Usage) -> dict[str, object]:
    """Return the specification's CompletionUsage; what a text model never has is 0."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
