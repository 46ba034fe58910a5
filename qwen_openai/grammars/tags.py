"""Calls in <tool_call> tags, as JSON (Qwen2.5, Qwen3) or as tags of their own (Qwen3-Coder).

Pure text. Rules are named by a tool's place, so nothing of a caller's becomes a name. What is read
of such answers is `parsing`'s business; this only says what may be written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qwen_openai.core import Tool
from qwen_openai.grammars import lark, schema, xml

MAX_CALLS = 16

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"

# Whatever a reader of JSON in text may skip.
_BLANKS = r"[\s\x1c-\x1f]*"

# Text that began like thoughts would be split off as thoughts, and what follows not be text.
_NO_THOUGHT = rf"~/{_BLANKS}<think>(?s:.*)/"


@dataclass(frozen=True, slots=True)
class Form:
    """Which calls an answer may hold: see `build.calls`."""

    syntax: Literal["hermes", "xml"]
    tools: tuple[Tool, ...]
    required: bool
    bare: bool


def rules(form: Form, *, most: int, said: str | None) -> str:
    """Return the rules of an answer with up to `most` calls; `said` are those of what else it may
    be, None for any text."""
    more = f" ({lark.literal(chr(10) + _OPEN)} call){{0,{most - 1}}}" if most > 1 else ""
    tagged = f"{lark.literal(_OPEN)} call{more}"
    if form.required:
        return "\n".join((f"answer: {tagged}", *_calls(form)))
    if said is not None:
        bare = " | bare" if form.bare else ""
        nested = f"said: {lark.nested(said, 'answer')}"
        documents = _documents(form) if form.bare else ()
        return "\n".join((f"answer: {tagged}{bare} | said", nested, *_calls(form), *documents))
    bare = " | bare" if form.bare else ""
    return "\n".join((f"answer: head call{more} | PLAIN{bare}", *_text(form), *_calls(form)))


def arguments_of(tool: Tool, required: bool) -> tuple[schema.Schema, bool]:
    """Return the schema that a call's arguments are held to, and whether strictly so.

    Raises InvalidRequest where a strict tool's schema cannot be enforced.
    """
    parameters = schema.NO_ARGUMENTS if tool.parameters is None else tool.parameters
    if tool.strict:
        return schema.checked(parameters, f"function {tool.name!r}", "tools"), True
    return (schema.relaxed(parameters) if required else schema.ANY_OBJECT), False


def json_arguments(name: str, tool: Tool, required: bool, *, loose: bool = False) -> str:
    """Return the rule called `name` of a call's arguments as JSON."""
    arguments, strict = arguments_of(tool, required)
    layout = schema.LOOSE if loose else schema.TIGHT
    text = schema.text(arguments, layout, lenient=not strict)
    return f"{lark.of_function(tool.name)}\n{name}: %json {text}"


def any_of(prefix: str, tools: Sequence[Tool]) -> str:
    """Return the expression of any of the tools' rules that are called `prefix` and a number."""
    return " | ".join(f"{prefix}{index}" for index in range(len(tools)))


def _calls(form: Form) -> list[str]:
    """Return the rules of `call`: all that stands behind the opening tag."""
    made = [f"call: {any_of('call', form.tools)}"]
    for index, tool in enumerate(form.tools):
        if form.syntax == "xml":
            start, end = f"\n<function={tool.name}>\n", f"</function>\n{_CLOSE}"
            arguments, strict = arguments_of(tool, form.required)
            made += xml.arguments(f"args{index}", tool.name, arguments, strict=strict)
        else:
            start = f'\n{{"name": {lark.json_text(tool.name)}, "arguments": '
            end = f"}}\n{_CLOSE}"
            made.append(json_arguments(f"args{index}", tool, form.required))
        made.append(f"call{index}: {lark.literal(start)} args{index} {lark.literal(end)}")
    return made


def _documents(form: Form) -> list[str]:
    """Return the rules of one call as bare JSON beside a format that is JSON too.

    A call is a document from end to end, so that its terminals are those of the format's: what
    begins like both is read as both.
    """
    made = [f"bare: {any_of('bare', form.tools)}"]
    for index, tool in enumerate(form.tools):
        arguments, strict = arguments_of(tool, form.required)
        call = {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                "arguments": schema.placed(arguments, "#/properties/arguments"),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        text = schema.text(call, lenient=not strict)
        made += [lark.of_function(tool.name), f"bare{index}: %json {text}"]
    return made


def _text(form: Form) -> list[str]:
    """Return the rules of text without calls: alone (PLAIN), and up to the first tag (head)."""
    opening = "<tool_call>" if form.syntax == "hermes" else "<tool_call>|<function="
    plain = f"{lark.ANYTHING} & ~/(?s:.*)({opening})(?s:.*)/ & {_NO_THOUGHT}"
    made = ["head[lazy]: HEAD", f"HEAD: PLAIN {lark.literal(_OPEN)}"]
    if form.bare:
        plain += " & ~(BARE /(?s:.*)/)"
        made += _bare(form)
    return [f"PLAIN: {plain}", *made]


def _bare(form: Form) -> list[str]:
    """Return the rules of a call as bare JSON, and the terminal BARE of how any such one begins.

    The beginning of each is one terminal, which goes on where that of text must end: the two are
    read side by side, and only one that is still alive can be the next. Of what a parser would read
    as a call too (a list of them, arguments first, a name in escapes) BARE has the beginning, so
    that it is no text, and `bare` nothing.
    """
    begin = rf"{_BLANKS}(```(json)?{_BLANKS})?"
    key = rf'"name"{_BLANKS}:{_BLANKS}"'
    names = "|".join(lark.exact(tool.name) for tool in form.tools)
    first = rf'{key}({names})"|{key}[^"\\]*\\|"arguments"|"[^"\\]*\\'
    made = [
        rf"BARE: /{begin}(\[{_BLANKS})?\{{{_BLANKS}({first})/",
        f"bare: {any_of('bare', form.tools)}",
    ]
    for index, tool in enumerate(form.tools):
        named = rf'\{{{_BLANKS}{key}{lark.exact(tool.name)}"'
        head = rf'{begin}{named}{_BLANKS},{_BLANKS}"arguments"{_BLANKS}:'
        made += [
            f"bare{index}: bare_head{index} BLANK? bare_args{index} BLANK? BARE_END",
            f"bare_head{index}[lazy]: BARE_HEAD{index}",
            f"BARE_HEAD{index}: /{head}/",
            json_arguments(f"bare_args{index}", tool, form.required, loose=True),
        ]
    return [*made, r"BLANK: /[ \n\t]{1,40}/", r"BARE_END: /\}[ \n]{0,4}(```)?[ \n]{0,4}/"]
