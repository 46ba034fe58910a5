"""A scripted engine that does whatever the facts of `check` ask of a model."""

import re
from collections.abc import Iterable

from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Step

_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
_PET = '{"name": "Tom", "kind": "cat"}'
_PIECE = re.compile(r"\s*\S+|\s+$")


def oblige(job: Job) -> Iterable[Step]:
    """Call a tool where one must be called, answer in the form that is asked for, count, repeat."""
    asked = job.messages[-1].content if job.messages else ""
    if job.grammar is not None:
        text = _CALL if job.tools else _PET
    elif asked.startswith("Count"):
        text = "one two three four five six"
    elif asked.startswith("Repeat exactly: "):
        text = asked.removeprefix("Repeat exactly: ")
    else:
        text = "Hello there, how are you today?"
    return _PIECE.findall(text)


def obliging() -> FakeEngine:
    """A started engine is the caller's to make of it."""
    return FakeEngine(oblige, tools="hermes", context=4096)
