"""A valid chat request to the Job that engines take: roles, system messages, sampling defaults.

Pure; knows no tokenizer and no HTTP. What it alters is told in `Job.changes`, what it leaves out
in `Job.ignored`; nothing is dropped without a word.
"""

from collections.abc import Sequence
from typing import TypeVar

from qwen_openai.adapter.history import SEPARATOR as SYSTEM_SEPARATOR
from qwen_openai.adapter.history import SYSTEM_MOVED, SYSTEMS_MERGED, to_history
from qwen_openai.adapter.limits import Limits
from qwen_openai.core import Job, Message, Sampling, Tool, ToolCall, ToolSyntax
from qwen_openai.errors import InvalidRequest
from qwen_openai.families import Family, SamplingDefaults
from qwen_openai.protocol.chat import ChatRequest
from qwen_openai.protocol.messages import ChatMessage

_Value = TypeVar("_Value")

# Between the text parts of one message, as vLLM joins them for models that take plain text.
PART_SEPARATOR = "\n"


def chat_job(request: ChatRequest, *, id: str, family: Family, limits: Limits) -> Job:
    """Return the job of a request; its model is the name the caller used.

    Raises InvalidRequest for an `n` or a number of messages beyond the limits, for calls and
    results that do not fit together, and for tools where the family has none.
    """
    _check_limits(request, limits)
    tools = _tools(request, family)
    continues = request.continue_final_message is True
    messages = [_message(each) for each in request.messages]
    if family.prompt == "pairs":
        # The engine makes the pairs. Made here too, they are refused before the job waits in a
        # queue, with the places that the caller counts.
        changes = to_history(messages, tools=tools, continue_final=continues).changes
    else:
        messages, changes = _one_leading_system(messages)
    return Job(
        id=id,
        model=request.model,
        messages=tuple(messages),
        sampling=_sampling(request, family.sampling),
        n=request.n or 1,
        continue_final_message=continues,
        tools=tools,
        tool_syntax=_syntax(messages, tools, family),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        watched=request.streams,
        changes=changes,
        ignored=request.ignored,
    )


def _tools(request: ChatRequest, family: Family) -> tuple[Tool, ...]:
    """Return the tools that the model is told of."""
    calls = any(message.tool_calls or message.role == "tool" for message in request.messages)
    if family.tools is None and (request.tools or calls):
        raise InvalidRequest("Tools are not supported by this model.", param="tools")
    if request.tools is None or request.tool_choice == "none":
        return ()
    return tuple(
        Tool(each.function.name, each.function.description or "", each.function.parameters)
        for each in request.tools
    )


def _syntax(
    messages: Sequence[Message], tools: Sequence[Tool], family: Family
) -> ToolSyntax | None:
    """Return the family's syntax where the prompt shows it to the model, which then may use it."""
    shown = tools or any(message.tool_calls for message in messages)
    return family.tools if shown else None


def _check_limits(request: ChatRequest, limits: Limits) -> None:
    if request.n is not None and request.n > limits.max_n:
        raise InvalidRequest(
            f"n must be an integer between 1 and {limits.max_n}, got {request.n}.", param="n"
        )
    if len(request.messages) > limits.max_messages:
        raise InvalidRequest(
            f"messages holds {len(request.messages)} messages; "
            f"at most {limits.max_messages} are taken.",
            param="messages",
        )


def _message(message: ChatMessage) -> Message:
    content = message.content or ""
    if not isinstance(content, str):
        content = PART_SEPARATOR.join(part.text for part in content)
    return Message(
        role="system" if message.role == "developer" else message.role,
        content=content,
        tool_calls=tuple(
            ToolCall(call.id, call.function.name, call.function.arguments)
            for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
    )


def _one_leading_system(messages: list[Message]) -> tuple[list[Message], tuple[str, ...]]:
    """Qwen's templates take one system message, first. Return messages of that form, and what was
    changed to get there."""
    places = [index for index, message in enumerate(messages) if message.role == "system"]
    if not places or places == [0]:
        return messages, ()
    system = SYSTEM_SEPARATOR.join(messages[index].content for index in places)
    rest = [message for message in messages if message.role != "system"]
    change = SYSTEM_MOVED if len(places) == 1 else SYSTEMS_MERGED
    return [Message("system", system), *rest], (change,)


def _sampling(request: ChatRequest, defaults: SamplingDefaults) -> Sampling:
    return Sampling(
        temperature=_given(request.temperature, defaults.temperature),
        top_p=_given(request.top_p, defaults.top_p),
        top_k=max(_given(request.top_k, defaults.top_k), 0),
        min_p=_given(request.min_p, defaults.min_p),
        presence_penalty=_given(request.presence_penalty, 0.0),
        frequency_penalty=_given(request.frequency_penalty, 0.0),
        repetition_penalty=_given(request.repetition_penalty, defaults.repetition_penalty),
        seed=request.seed,
        max_tokens=_given(request.max_completion_tokens, request.max_tokens),
        stop=_stop(request.stop),
    )


def _given(value: _Value | None, default: _Value) -> _Value:
    return default if value is None else value


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop))
