"""Calls as lines of labels (ReAct), as Qwen-1 writes them and `parsing.react` reads them.

Pure text. An answer may begin at the beginning of a line, or behind a "Thought:" that the prompt
ends with; the rules fit both. Every call is sealed with "Observation:", which also ends the answer.
"""

from collections.abc import Sequence

from qwen_openai.core import Tool
from qwen_openai.grammars import lark
from qwen_openai.grammars.tags import any_of, json_arguments

# A line before a call, its thought. Without backticks, as a fence would make code of the call; and
# short, or a model that will not call would never come to an end. Written without complements,
# which together with a length are too much for llguidance over a whole vocabulary.
_LONGEST = 200
_LINE = rf"[^\n`]{{0,{_LONGEST}}}"


def rules(tools: Sequence[Tool], *, required: bool, most: int, said: str | None) -> str:
    """Return the rules of an answer with up to `most` calls; see `build.calls`."""
    more = f" (MORE call){{0,{most - 1}}}" if most > 1 else ""
    rest = f"call{more} {lark.literal(chr(10) + 'Observation:')}"
    made = _calls(tools, required)
    if most > 1:
        made.append(rf"MORE: /\n(Thought:{_LINE}\n)?Action: /")
    if not required and said is None:
        return "\n".join((f"answer: head {rest} | PLAIN", *_text(), *made))
    called = f"THOUGHT? {lark.literal(chr(10) + 'Action: ')} {rest}"
    if said is None:
        return "\n".join((f"answer: {called}", f"THOUGHT: /(Thought:| ){_LINE}/", *made))
    # Beside something else only a thought with its label can be told from that.
    labelled = f"THOUGHT: /Thought:{_LINE}/"
    nested = lark.nested(said, "answer")
    return "\n".join((f"answer: {called} | said", f"said: {nested}", labelled, *made))


def _text() -> list[str]:
    return [
        rf"PLAIN: {lark.ANYTHING} & ~/((?s:.*)\n)?Action:(?s:.*)/",
        "head[lazy]: HEAD",
        r'HEAD: (PLAIN "\n")? "Action: "',
    ]


def _calls(tools: Sequence[Tool], required: bool) -> list[str]:
    """Return the rules of `call`: what stands behind "Action: "."""
    made = [f"call: {any_of('call', tools)}"]
    for index, tool in enumerate(tools):
        start = lark.literal(f"{tool.name}\nAction Input: ")
        made += [
            f"call{index}: {start} args{index}",
            json_arguments(f"args{index}", tool, required),
        ]
    return made
