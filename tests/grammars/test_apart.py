"""Formats whose documents could be taken for bare calls, held against what parsers and grammars do.

What is told apart must be so: no document of such a format may be read as a call.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_openai.core import Job, Started, Text, Tool, ToolCallStart
from qwen_openai.grammars import build
from qwen_openai.grammars.apart import may_be_call
from qwen_openai.grammars.guard import Guard
from qwen_openai.parsing.chain import Chain
from tests.grammars.schemas import closed

TOOLS = (Tool("f", "", {"type": "object"}), Tool("g", "", None))
NAMES = ("f", "g")
STRING: dict[str, object] = {"type": "string"}
OBJECT: dict[str, object] = {"type": "object"}
BOTH: dict[str, object] = {"name": STRING, "arguments": OBJECT}
FINAL = closed({"temperature": {"type": "number"}, "condition": STRING})


@pytest.mark.parametrize(
    "schema",
    [
        FINAL,
        closed({"name": STRING, "age": {"type": "integer"}}, "age"),
        {"type": "object", "properties": {"reply": STRING}, "required": ["reply"]},
        {"$ref": "#/$defs/a", "$defs": {"a": FINAL}, "title": "A"},
        {"anyOf": [FINAL, {"type": "null"}, {"type": "array", "items": FINAL}]},
        {"allOf": [FINAL]},
        {"type": ["string", "integer", "null"]},
        {"enum": ["f", 3, {"name": "x", "arguments": {}}, {"name": "f"}]},
        closed({**BOTH, "name": {"enum": ["x", "y"]}}),
        closed({**BOTH, "name": {"const": "x"}}),
        closed({**BOTH, "arguments": {"type": ["number", "array"]}}),
        closed({**BOTH, "arguments": False}),
        closed({"why": STRING, **BOTH}),
        closed({"name": STRING, "why": STRING, "arguments": OBJECT}),
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "array", "items": FINAL, "prefixItems": [{"type": "integer"}]},
        False,
    ],
)
def test_what_can_be_told_apart(schema: dict[str, object] | bool) -> None:
    assert not may_be_call(schema, NAMES)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        OBJECT,
        closed(BOTH),
        closed(dict(reversed(BOTH.items()))),
        closed({**BOTH, "why": STRING}),
        closed({**BOTH, "name": {"enum": ["x", "g"]}}),
        closed({**BOTH, "arguments": STRING}),
        closed({**BOTH, "arguments": {"anyOf": [{"type": "null"}, OBJECT]}}),
        {"properties": FINAL["properties"], "required": ["temperature"]},
        {"type": "object", "properties": {"reply": STRING}},
        {"type": "object", "patternProperties": {"^.": {}}, "additionalProperties": False},
        {"type": "array", "items": closed(BOTH)},
        {"type": "array"},
        {"anyOf": [FINAL, closed(BOTH)]},
        {"anyOf": [FINAL], "type": "object"},
        {"allOf": [FINAL, FINAL]},
        {"const": {"name": "f", "arguments": {}}},
        {"const": [{"name": "f", "arguments": {}}]},
        {"$ref": "#"},
        {"type": "array", "items": {"$ref": "#"}},
        {"$ref": "#/$defs/none"},
        {"type": [{}], "required": [{}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}] * 50}}},
    ],
)
def test_what_may_be_a_call(schema: dict[str, object] | bool) -> None:
    assert may_be_call(schema, NAMES)


def test_another_tools_name_is_no_call() -> None:
    assert not may_be_call(closed({**BOTH, "name": {"const": "f"}}), ["g"])


_LEAF = st.sampled_from([
    STRING, OBJECT, {}, {"type": "integer"}, {"enum": ["f", 1]}, {"enum": ["x"]}, {"const": {}},
    {"anyOf": [{"type": "null"}, OBJECT]},
])  # fmt: skip


@st.composite
def _objects(draw: st.DrawFn) -> dict[str, object]:
    keys = draw(st.permutations(["name", "arguments", "a", "n"]))
    made: dict[str, object] = {key: draw(_LEAF) for key in keys[: draw(st.integers(0, 4))]}
    schema = closed(made, *draw(st.sets(st.sampled_from(list(made)))) if made else ())
    schema["additionalProperties"] = draw(st.sampled_from([False, True, STRING]))
    return draw(st.sampled_from([schema, {"anyOf": [schema, {"type": "null"}]}]))


_TOKENS = st.sampled_from([
    '{"name": "f"', '{"name": "x"', ', "arguments": {', ', "arguments": "{}"', '{"arguments": {',
    "}", ', "name": "g"', '{"a": 1', ', "a": 1', ', "a": ""', '{"n": {}', ', "n": {}', "{",
    "[", "]", ', "n": "f"', '"x": "' + "y" * 40 + '"', ', "name": ', '"f"', '{"a": ', '{"n": ', "1",
    "{}",
])  # fmt: skip


@given(_objects(), st.lists(_TOKENS, max_size=10))
@settings(max_examples=200, deadline=None)
def test_no_document_that_is_told_apart_is_read_as_a_call(
    schema: dict[str, object], pieces: list[str]
) -> None:
    if may_be_call(schema, NAMES):
        return
    guard = Guard(build.json_schema(schema))
    chain = Chain(
        Job("1", "m", (), tools=TOOLS, tool_syntax="hermes", bare_calls=True, calls_lead=True)
    )
    chain.feed(Started(0, 1))
    kept = ""
    for piece in pieces:
        # As far as the format lets it; a call begins before its document ends.
        twin = guard.fresh()
        if twin.feed(kept + piece):
            kept += piece
            events = chain.feed(Text(0, piece))
            assert not any(isinstance(event, ToolCallStart) for event in events)
