"""Events to the bodies and chunks of chat completions: sole owner of their shape.

Knows OpenAI's wire (specification 2.3.0: CreateChatCompletionResponse and
CreateChatCompletionStreamResponse), no HTTP: `sse` frames the chunks, routes send them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qwen_openai.core import (
    Event,
    Finish,
    FinishReason,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.errors import EngineFailed
from qwen_openai.responses.extras import with_members
from qwen_openai.responses.fold import Fold, FoldedChoice
from qwen_openai.responses.wire import DataEvents, token_logprobs, usage_object

# Under which names thoughts go out: DeepSeek's and Qwen's own services use the first, vLLM the
# second.
ReasoningField = Literal["reasoning_content", "reasoning", "both"]

Delta = dict[str, object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller wants of an answer's shape: ``n`` choices; with ``include_usage`` a usage chunk
    at a stream's end, and `usage: null` in its other chunks; thoughts under ``reasoning``; with
    ``legacy_functions`` calls as `function_call`, as callers expect who sent `functions`; and
    ``logprobs``, which are null else."""

    n: int
    include_usage: bool = False
    reasoning: ReasoningField = "reasoning_content"
    legacy_functions: bool = False
    logprobs: bool = False


class ChatReply(DataEvents):
    """One request's identity on the wire: the same id, time and model in all its chunks."""

    def __init__(
        self, *, id: str, model: str, created: int, system_fingerprint: str, wanted: Wanted
    ) -> None:
        """`created` is Unix time in seconds."""
        super().__init__()
        self._head = {"id": id, "object": "", "created": created, "model": model}
        self._fingerprint = system_fingerprint
        self._n = wanted.n
        self._include_usage = wanted.include_usage
        field = wanted.reasoning
        self._reasoning = ("reasoning_content", "reasoning") if field == "both" else (field,)
        self._legacy = wanted.legacy_functions
        self._logprobs = wanted.logprobs

    def opening(self) -> list[dict[str, object]]:
        """Return the chunk of each choice that names its role, index ascending. The role is in no
        other chunk: the openai SDK's stream helper would concatenate it."""
        return [
            self._delta(index, {"role": "assistant", "content": ""}) for index in range(self._n)
        ]

    def own_chunks(self, event: Event) -> list[dict[str, object]]:
        if isinstance(event, Finish):
            return [self._delta(event.index, {}, reason=event.reason)]
        if isinstance(event, Text | Reasoning):
            logprobs = event.logprobs if self._logprobs else ()
            if not event.text and not logprobs:
                return []
            names = self._reasoning if isinstance(event, Reasoning) else ("content",)
            delta: Delta = dict.fromkeys(names, event.text) if event.text else {}
            return [self._delta(event.index, delta, logprobs)]
        if isinstance(event, ToolCallStart | ToolCallArguments):
            delta = _function(event) if self._legacy else _call(event)
            return [self._delta(event.index, delta)] if delta else []
        return []

    def closing(self, fold: Fold) -> list[dict[str, object]]:
        """Return what comes after the last choice: the usage chunk, if it was asked for."""
        if not self._include_usage:
            return []
        extra = fold.extra
        usage = with_members(usage_object(fold.usage), extra.usage)
        return [self._chunk([], usage)]

    def body(self, fold: Fold) -> dict[str, object]:
        """Return the plain answer. Raises EngineFailed if a choice never finished."""
        extra = fold.extra
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [self._choice(index, each) for index, each in enumerate(fold.choices)],
            "usage": with_members(usage_object(fold.usage), extra.usage),
            "system_fingerprint": self._fingerprint,
            **extra.body,
        }

    def _choice(self, index: int, choice: FoldedChoice) -> dict[str, object]:
        if choice.reason is None:
            raise EngineFailed("The engine stopped before the answer was finished; try again.")
        calls = choice.tool_calls
        content = None if calls and not choice.text else choice.text
        message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
        if choice.reasoning:
            message.update(dict.fromkeys(self._reasoning, choice.reasoning))
        if calls:
            message.update(self._calls(calls))
        extra = choice.extra
        if extra is not None:
            message.update(extra.delta)
        return {
            "index": index,
            "message": message,
            "logprobs": _logprobs(choice.logprobs) if self._logprobs else None,
            "finish_reason": self._named(choice.reason),
            **({} if extra is None else extra.choice),
        }

    def _calls(self, calls: Sequence[ToolCall]) -> dict[str, object]:
        functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
        if self._legacy:
            return {"function_call": functions[0]}
        pairs = zip(calls, functions, strict=True)
        return {
            "tool_calls": [
                {"id": call.id, "type": "function", "function": function}
                for call, function in pairs
            ]
        }

    def _named(self, reason: FinishReason | None) -> str | None:
        return "function_call" if self._legacy and reason == "tool_calls" else reason

    def _delta(
        self,
        index: int,
        delta: Delta,
        logprobs: Sequence[TokenLogprob] = (),
        *,
        reason: FinishReason | None = None,
    ) -> dict[str, object]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _logprobs(logprobs) if logprobs else None,
            "finish_reason": self._named(reason),
        }
        return self._chunk([choice], None)

    def _chunk(
        self, choices: list[dict[str, object]], usage: dict[str, object] | None
    ) -> dict[str, object]:
        chunk: dict[str, object] = {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": choices,
            "system_fingerprint": self._fingerprint,
        }
        if self._include_usage:
            chunk["usage"] = usage
        return chunk


def _call(event: ToolCallStart | ToolCallArguments) -> Delta:
    """Return one element of `tool_calls`. After a call's start it is nothing but arguments: clients
    concatenate whatever comes a second time."""
    if isinstance(event, ToolCallArguments):
        return {"tool_calls": [{"index": event.call, "function": {"arguments": event.text}}]}
    function = {"name": event.name, "arguments": ""}
    call = {"index": event.call, "id": event.id, "type": "function", "function": function}
    return {"tool_calls": [call]}


def _function(event: ToolCallStart | ToolCallArguments) -> Delta:
    """Return a piece of `function_call`; that form has room for one call, the first."""
    if event.call:
        return {}
    if isinstance(event, ToolCallArguments):
        return {"function_call": {"arguments": event.text}}
    return {"function_call": {"name": event.name, "arguments": ""}}


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, object]:
    # A refusal is a message of its own kind, which Qwen never writes; the key is required.
    return {"content": token_logprobs(tokens), "refusal": None}
