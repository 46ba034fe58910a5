"""Which tools a model is told of, which of them it may or must call, and the grammar for that.

Pure; knows a request's tools in both forms (`tools`, and the older `functions`), nothing of how a
model is told of them. What is enforced: `required`, one function by name, and `strict` functions;
whatever else a model is asked for, it may do otherwise.
"""

from dataclasses import dataclass
from typing import Literal

from qwen_openai.core import FinishReason, Grammar, Tool, ToolSyntax
from qwen_openai.errors import UnsupportedParameter
from qwen_openai.families import Family
from qwen_openai.grammars import build
from qwen_openai.grammars.apart import may_be_call
from qwen_openai.grammars.schema import ANY_OBJECT, Schema
from qwen_openai.protocol.chat import ChatRequest
from qwen_openai.protocol.tools import NamedChoice, ToolChoice


@dataclass(frozen=True, slots=True)
class Plan:
    """``told`` are the tools in the prompt, ``open`` those of them that may be called, ``required``
    whether one must be. ``parallel`` False is at most one call. ``reason`` finishes an answer with
    calls. ``param`` is what asks for what has to be enforced."""

    told: tuple[Tool, ...] = ()
    open: tuple[Tool, ...] = ()
    required: bool = False
    parallel: bool = True
    reason: FinishReason = "tool_calls"
    param: str = "tool_choice"

    def grammar(
        self, syntax: ToolSyntax | None, answer: Grammar | None, *, bare: bool
    ) -> Grammar | None:
        """Return what an answer must match where calls or their arguments are enforced, or where
        `answer`, the format of what is no call, is; None where any text will do. `bare` as in
        core.Job.bare_calls: `may_be_bare` says whether it can be with a format."""
        if syntax is None or not self.open:
            return answer
        strict = any(tool.strict for tool in self.open)
        if not self.required and not strict and answer is None:
            return None
        rules = build.calls(
            self.open,
            syntax,
            required=self.required,
            parallel=self.parallel,
            answer=None if answer is None else answer.rules,
            bare=bare,
        )
        param = self.param if self.required or answer is None else answer.param
        return Grammar(rules, param)

    def may_be_bare(self, format: Schema | None, *, answers: bool) -> bool:
        """Whether a call without tags can be told from an answer in a format: the schema of one
        that is JSON, None for any other; `answers` says that results stand right before it.

        Of any object whatever, one that names a tool is meant as a call, but nothing could hold
        its arguments to a strict schema. Where a schema was given, its answers come first: a small
        model with the habit repeats its call behind the result, and would never come to them.
        """
        if format is None:
            return False
        if format == ANY_OBJECT:
            return not any(tool.strict for tool in self.open)
        return not answers and not may_be_call(format, [tool.name for tool in self.open])


@dataclass(frozen=True, slots=True)
class _Choice:
    """`names` None is any of the tools, which they are among. `one` is a function named by
    itself."""

    mode: Literal["none", "auto", "required"]
    names: tuple[str, ...] | None = None
    one: bool = False


def plan_of(request: ChatRequest, family: Family) -> Plan:
    """Return what a request's tools come to. Raises UnsupportedParameter for tools where the
    family's template cannot tell them."""
    legacy = request.functions is not None
    given, asks = ("functions", "function_call") if legacy else ("tools", "tool_choice")
    tools = _tools(request)
    if tools and family.tools is None:
        raise UnsupportedParameter(
            f"{given}: this model's template cannot tell it of tools; leave the parameter out, or "
            "use a model that takes tools.",
            param=given,
        )
    # The older form has place for one call in an answer.
    parallel = request.parallel_tool_calls is not False and not legacy
    choice = _function_call(request) if legacy else _tool_choice(request.tool_choice)
    if not tools or choice.mode == "none":
        return Plan(parallel=parallel)
    names = choice.names
    open = tools if names is None else tuple(tool for tool in tools if tool.name in names)
    if choice.one:
        # All are told, so that the prompt is the same whichever function is named, and what is
        # cached of it serves; the grammar leaves one. OpenAI finishes such an answer with "stop".
        return Plan(tools, open, True, False, "stop", asks)
    required = choice.mode == "required"
    return Plan(open, open, required, parallel, param=asks if required else given)


def _tools(request: ChatRequest) -> tuple[Tool, ...]:
    functions = request.functions
    if functions is None:
        functions = [tool.function for tool in request.tools or ()]
    return tuple(
        Tool(each.name, each.description or "", each.parameters, each.strict is True)
        for each in functions
    )


def _function_call(request: ChatRequest) -> _Choice:
    called = request.function_call
    if called is None or isinstance(called, str):
        return _Choice(called or "auto")
    return _Choice("required", (called.name,), one=True)


def _tool_choice(choice: ToolChoice | None) -> _Choice:
    if choice is None or isinstance(choice, str):
        return _Choice(choice or "auto")
    if isinstance(choice, NamedChoice):
        return _Choice("required", (choice.function.name,), one=True)
    allowed = choice.allowed_tools
    names = tuple(each.function.name for each in allowed.tools)
    return _Choice(allowed.mode, names)
