"""Rules for what an answer must match, as Lark text with the root `answer`; `whole` completes them.

Pure text: nothing is compiled here (`check`) and nothing is known of engines. Whatever a caller
wrote stands in literals, in JSON or in a nested grammar of its own, so it cannot break out.
"""

from collections.abc import Sequence
from typing import Literal

from qwen_openai.core import Tool, ToolSyntax
from qwen_openai.grammars import custom as own
from qwen_openai.grammars import lark, react, schema, tags
from qwen_openai.grammars.tags import MAX_CALLS


def json_object() -> str:
    """Rules of any JSON object."""
    return f"answer: %json {schema.text(schema.ANY_OBJECT)}"


def json_schema(schema_: schema.Schema, *, param: str = "response_format") -> str:
    """Rules of JSON that a schema allows.

    Raises InvalidRequest at `param` for a schema that is too large or cannot be enforced; its
    message begins with "Invalid schema for response_format", which clients look for.
    """
    what = param.partition(".")[0]
    return f"answer: %json {schema.text(schema.checked(schema_, what, param))}"


def regex(pattern: str) -> str:
    """Rules of text that a regular expression matches from end to end."""
    return f"answer: ANSWER\nANSWER: {lark.pattern(pattern)}"


def choice(values: Sequence[str]) -> str:
    """Rules of exactly one of `values` (at least one)."""
    return f"answer: ANSWER\nANSWER: {lark.one_of(values)}"


def custom(text: str) -> str:
    """Rules of a caller's own grammar: Lark with the root `start`, or GBNF with `root ::=`.

    Raises InvalidRequest for a text that is neither.
    """
    return own.rules(text)


def calls(
    tools: Sequence[Tool],
    syntax: ToolSyntax,
    *,
    required: bool,
    parallel: bool,
    answer: str | None = None,
    bare: bool = False,
) -> str:
    """Rules of an answer that may call `tools` (at least one), as `syntax` writes calls.

    With `required` it is one call, or up to 16 with `parallel`, and nothing else. Otherwise it is
    calls, perhaps behind text, or what the rules in `answer` say; without these any text without
    calls. Arguments match a tool's schema where it is strict or a call is required; a schema that
    is not strict and cannot be enforced becomes any object. With `bare` a text must not begin like
    a call of a tool without its tags, in a fence or not, unless it is one that matches. Beside an
    `answer`, which must then be JSON, `bare` allows one call without tags, in its layout.

    Raises InvalidRequest for a strict tool whose schema cannot be enforced.
    """
    most = MAX_CALLS if parallel else 1
    if syntax == "react":
        return react.rules(tools, required=required, most=most, said=answer)
    form = tags.Form(syntax, tuple(tools), required=required, bare=bare)
    return tags.rules(form, most=most, said=answer)


def whole(rules: str, thoughts: Literal["none", "open", "may"]) -> str:
    """Return a complete grammar with the root `start`: thoughts, where there are any, then `rules`.

    "open" is for a prompt that ends inside <think>, "may" for an answer that may begin with it.
    Thoughts are free up to the first </think>.
    """
    if thoughts == "none":
        return f"start: answer\n{rules}\n"
    begin = "" if thoughts == "open" else "<think>"
    thought = f"thought[lazy]: THOUGHT\nTHOUGHT: /{begin}(?s:.*)<\\/think>/"
    first = "thought" if thoughts == "open" else "(thought BREAK?)?"
    between = " BREAK?" if thoughts == "open" else ""
    return f"start: {first}{between} answer\n{thought}\nBREAK: /\\n{{1,4}}/\n{rules}\n"
