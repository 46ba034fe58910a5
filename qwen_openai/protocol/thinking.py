"""How much a model may think: reasoning_effort, enable_thinking and chat_template_kwargs.

Knows the wire only; what a chat template makes of them is `prompting`'s. Of a template's variables
only those on a list may be set, so that no request reaches into the renderer (threat row 23).
"""

from typing import Literal

from qwen_openai.errors import InvalidRequest, UnsupportedParameter
from qwen_openai.protocol.fields import safe_name
from qwen_openai.protocol.shown import shown
from qwen_openai.protocol.wire import Wire

# OpenAI's specification 2.3.0: ReasoningEffort.
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_EFFORTS = 'one of "none", "minimal", "low", "medium", "high", "xhigh", "max"'

# Qwen's templates know thinking and no thinking: what the two least efforts mean is none.
NO_THINKING = ("none", "minimal")


class TemplateOptions(Wire):
    """The variables of a chat template that a caller may set."""

    enable_thinking: bool | None = None
    preserve_thinking: bool | None = None
    reasoning_effort: Effort | None = None


class ThinkingFields(Wire):
    """The parameters that say how much to think."""

    reasoning_effort: Effort | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: TemplateOptions | None = None


ACCEPTS = {
    "reasoning_effort": _EFFORTS,
    "enable_thinking": "true or false",
    "chat_template_kwargs": "an object",
    "chat_template_kwargs.enable_thinking": "true or false",
    "chat_template_kwargs.preserve_thinking": "true or false",
    "chat_template_kwargs.reasoning_effort": _EFFORTS,
}


def refuse_options(options: object) -> None:
    """Refuse variables that are not on the list, in a member not yet validated; null asks for
    nothing. Raises UnsupportedParameter."""
    for name, value in options.items() if isinstance(options, dict) else ():
        if name not in TemplateOptions.model_fields and value is not None:
            place = f"chat_template_kwargs.{safe_name(name)}"
            raise UnsupportedParameter(
                f"{place} may not be set; chat_template_kwargs takes "
                f"{', '.join(TemplateOptions.model_fields)}.",
                param=place,
            )


def check_thinking(request: ThinkingFields) -> None:
    """Refuse parameters that contradict one another. Raises InvalidRequest."""
    options = request.chat_template_kwargs or TemplateOptions()
    for name, one, other in (
        ("enable_thinking", request.enable_thinking, options.enable_thinking),
        ("reasoning_effort", request.reasoning_effort, options.reasoning_effort),
    ):
        if one is not None and other is not None and one != other:
            raise _contradiction(f"chat_template_kwargs.{name}", other, name, one)
    enable = request.enable_thinking
    if enable is None:
        enable = options.enable_thinking
    effort = request.reasoning_effort or options.reasoning_effort
    if enable is None or effort is None:
        return
    # "minimal" may mean either: OpenAI thinks a little, Qwen's templates do not.
    if (enable and effort == "none") or (not enable and effort not in NO_THINKING):
        raise _contradiction("reasoning_effort", effort, "enable_thinking", enable)


def _contradiction(name: str, value: object, other: str, its: object) -> InvalidRequest:
    return InvalidRequest(
        f"{name} {shown(value)} and {other} {shown(its)} contradict each other; send one of them.",
        param=name,
    )
