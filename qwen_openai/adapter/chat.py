"""A valid chat request to the Job that engines take: roles, system messages, sampling defaults.

Pure; knows no tokenizer and no HTTP. What it alters is told in `Job.changes`, what it leaves out
in `Job.ignored`; nothing is dropped without a word.
"""

from typing import TypeVar

from qwen_openai.adapter.limits import Limits
from qwen_openai.core import Job, Message, Sampling
from qwen_openai.errors import InvalidRequest
from qwen_openai.families import Family, SamplingDefaults
from qwen_openai.protocol.chat import ChatMessage, ChatRequest

_Value = TypeVar("_Value")

# Between the text parts of one message, as vLLM joins them for models that take plain text.
PART_SEPARATOR = "\n"
# Between system messages that become one.
SYSTEM_SEPARATOR = "\n\n"


def chat_job(request: ChatRequest, *, id: str, family: Family, limits: Limits) -> Job:
    """Return the job of a request; its model is the name the caller used.

    Raises InvalidRequest for an `n` or a number of messages beyond the limits.
    """
    _check_limits(request, limits)
    messages, changes = _one_leading_system([_message(each) for each in request.messages])
    return Job(
        id=id,
        model=request.model,
        messages=tuple(messages),
        sampling=_sampling(request, family.sampling),
        n=request.n or 1,
        continue_final_message=request.continue_final_message is True,
        changes=changes,
        ignored=request.ignored,
    )


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
    content = message.content
    if not isinstance(content, str):
        content = PART_SEPARATOR.join(part.text for part in content)
    return Message("system" if message.role == "developer" else message.role, content)


def _one_leading_system(messages: list[Message]) -> tuple[list[Message], tuple[str, ...]]:
    """Qwen's templates take one system message, first. Return messages of that form, and what was
    changed to get there."""
    places = [index for index, message in enumerate(messages) if message.role == "system"]
    if not places or places == [0]:
        return messages, ()
    system = SYSTEM_SEPARATOR.join(messages[index].content for index in places)
    rest = [message for message in messages if message.role != "system"]
    change = (
        "system message moved to the front"
        if len(places) == 1
        else "system messages merged into one leading message"
    )
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
