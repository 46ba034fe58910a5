"""What a request says about thoughts, for what its model can do about them.

Pure. Four parameters say it, and the first that is given decides whether there are thoughts:
`enable_thinking`, `chat_template_kwargs.enable_thinking`, `reasoning_effort` and
`chat_template_kwargs.reasoning_effort`, where an effort of "none" or "minimal" means none.
"""

from dataclasses import dataclass

from qwen_openai.core import TemplateValue
from qwen_openai.errors import UnsupportedParameter
from qwen_openai.families import Family
from qwen_openai.protocol.chat import ChatRequest
from qwen_openai.protocol.thinking import NO_THINKING


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What core.Job has of it. ``ignored`` names parameters that this model makes nothing of,
    ``changes`` says of which it takes less than was asked for."""

    thinks: bool
    enable: bool | None = None
    options: tuple[tuple[str, TemplateValue], ...] = ()
    ignored: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def thoughts_of(request: ChatRequest, family: Family) -> Thoughts:
    """Return whether the model is to think, and what its template is told of it.

    A model that never thinks ignores that it should. Raises UnsupportedParameter where one that
    always does is told not to.
    """
    switch = _switch(request)
    options, ignored = _options(request, family)
    levels = _lost_levels(request, family)
    if family.thinking == "never":
        asked = tuple(name for name, on in _wishes(request) if on)
        return Thoughts(False, None, options, (*asked, *ignored))
    if family.thinking == "always":
        if switch is not None and not switch[1]:
            raise UnsupportedParameter(
                f"{switch[0]}: this model always thinks before it answers; leave the parameter "
                "out, or use a model that can answer at once.",
                param=switch[0],
            )
        return Thoughts(_may_think(request), None, options, (*levels, *ignored))
    enable = None if switch is None else switch[1]
    changes = tuple(f"{name} switches thinking on, without a level" for name in levels)
    thinks = enable is not False and _may_think(request)
    return Thoughts(thinks, enable, options, ignored, changes)


def _may_think(request: ChatRequest) -> bool:
    """An answer that goes on with a text has its thoughts behind it."""
    return request.continue_final_message is not True


def _wishes(request: ChatRequest) -> list[tuple[str, bool]]:
    """Return the parameters that say whether to think, and what they say, the first deciding."""
    given = request.chat_template_kwargs
    inner = None if given is None else given.enable_thinking
    effort = None if given is None else given.reasoning_effort
    wishes: list[tuple[str, bool]] = []
    if request.enable_thinking is not None:
        wishes.append(("enable_thinking", request.enable_thinking))
    if inner is not None:
        wishes.append(("chat_template_kwargs.enable_thinking", inner))
    if request.reasoning_effort is not None:
        wishes.append(("reasoning_effort", request.reasoning_effort not in NO_THINKING))
    if effort is not None:
        wishes.append(("chat_template_kwargs.reasoning_effort", effort not in NO_THINKING))
    return wishes


def _switch(request: ChatRequest) -> tuple[str, bool] | None:
    return next(iter(_wishes(request)), None)


def _options(
    request: ChatRequest, family: Family
) -> tuple[tuple[tuple[str, TemplateValue], ...], tuple[str, ...]]:
    """Return what the template is told beside the switch, and what it would make nothing of."""
    options: list[tuple[str, TemplateValue]] = []
    ignored: list[str] = []
    effort = _effort(request, family)
    if effort is not None:
        options.append(("reasoning_effort", effort))
    given = request.chat_template_kwargs
    preserve = None if given is None else given.preserve_thinking
    if preserve is not None:
        if family.preserves_thinking:
            options.append(("preserve_thinking", preserve))
        else:
            ignored.append("chat_template_kwargs.preserve_thinking")
    return tuple(options), tuple(ignored)


def _lost_levels(request: ChatRequest, family: Family) -> tuple[str, ...]:
    """Return the parameters that ask for an effort for which the template has no word."""
    if _effort(request, family) is not None:
        return ()
    return tuple(name for name, on in _wishes(request) if on and name.endswith("reasoning_effort"))


def _effort(request: ChatRequest, family: Family) -> str | None:
    """Return the template's own word for an effort, None where it has none."""
    given = request.chat_template_kwargs
    effort = request.reasoning_effort or (None if given is None else given.reasoning_effort)
    return None if effort is None else dict(family.efforts).get(effort)
