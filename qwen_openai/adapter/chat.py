"""A valid chat request to the Job that engines take: every field of it decided.

Pure; knows no tokenizer and no HTTP. What it alters is told in `Job.changes`, what it leaves out
in `Job.ignored`; nothing is dropped without a word.
"""

from collections.abc import Mapping, Sequence

from qwen_openai.adapter.choice import Plan, plan_of
from qwen_openai.adapter.conversation import conversation, one_leading_system
from qwen_openai.adapter.formats import format_of, schema_of
from qwen_openai.adapter.history import to_history
from qwen_openai.adapter.limits import Limits
from qwen_openai.adapter.refusals import refuse
from qwen_openai.adapter.sampling import sampling_of
from qwen_openai.adapter.thinking import thoughts_of
from qwen_openai.adapter.tools import in_order_of_calls
from qwen_openai.core import Grammar, Job, Message, ToolSyntax
from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.families import Family
from qwen_openai.protocol.chat import ChatRequest


def chat_job(
    request: ChatRequest,
    *,
    id: str,
    family: Family,
    limits: Limits,
    refuses: frozenset[str] = frozenset(),
    asked: Mapping[str, object] | None = None,
) -> Job:
    """Return the job of a request; its model is the name the caller used.

    `family` is the model's row, with what its engine tells of it; `refuses` are the parameters
    that this engine cannot honour, `asked` becomes the job's. Raises InvalidRequest for an `n` or
    a number of messages beyond the limits and for calls and results that do not fit together,
    UnsupportedParameter for what the model or its engine cannot do.
    """
    _check_limits(request, limits)
    plan = plan_of(request, family)
    thoughts = thoughts_of(request, family)
    messages, changes = _messages(request, plan, family)
    syntax = _syntax(messages, plan, family)
    answer = format_of(request)
    bare = family.bare_calls and bool(plan.told)
    if bare and answer is not None:
        # An answer in a format may look like a call without being one.
        answers = bool(messages) and messages[-1].role == "tool"
        bare = plan.may_be_bare(schema_of(request), answers=answers)
    job = Job(
        id=id,
        model=request.model,
        messages=tuple(messages),
        sampling=sampling_of(request, family, thinks=thoughts.thinks),
        n=request.n or 1,
        continue_final_message=request.continue_final_message is True,
        tools=plan.told,
        tool_syntax=syntax,
        bare_calls=bare,
        calls_lead=bool(plan.told) and answer is not None,
        parallel_tool_calls=plan.parallel,
        calls_reason=plan.reason,
        grammar=plan.grammar(syntax, answer, bare=bare),
        enable_thinking=thoughts.enable,
        template_options=thoughts.options,
        thinks=thoughts.thinks,
        asked=asked,
        watched=request.streams,
        changes=(*changes, *thoughts.changes),
        ignored=(*request.ignored, *thoughts.ignored, *_moot(plan, answer)),
    )
    refuse(request, job, refuses)
    return job


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


def _messages(
    request: ChatRequest, plan: Plan, family: Family
) -> tuple[list[Message], tuple[str, ...]]:
    messages = conversation(request.messages)
    if family.tools is None:
        _refuse_calls(messages)
    if family.prompt == "pairs":
        # The engine makes the pairs. Made here too, they are refused before the job waits in a
        # queue, with the places that the caller counts.
        continues = request.continue_final_message is True
        return messages, to_history(messages, tools=plan.told, continue_final=continues).changes
    # A template would break on what does not fit together, or tell the model nonsense.
    messages, sorted_ = in_order_of_calls(messages)
    messages, moved = one_leading_system(messages)
    return messages, sorted_ + moved


def _refuse_calls(messages: Sequence[Message]) -> None:
    for index, message in enumerate(messages):
        if message.tool_calls or message.role == "tool":
            place = f"messages[{index}]" + (".tool_calls" if message.tool_calls else ".role")
            raise UnsupportedParameter(
                f"{place}: this model's template cannot tell it of calls and their results; use a "
                "model that takes tools.",
                param=place,
            )


def _syntax(messages: Sequence[Message], plan: Plan, family: Family) -> ToolSyntax | None:
    """Return the family's syntax where the prompt shows it to the model, which then may use it."""
    shown = plan.told or any(message.tool_calls for message in messages)
    return family.tools if shown else None


def _moot(plan: Plan, answer: Grammar | None) -> tuple[str, ...]:
    """An answer that must be a call is never text, whatever that should look like."""
    return (answer.param,) if answer is not None and plan.required else ()
