"""Grammars of a bare call beside a format that is JSON: whatever they share, each stands whole."""

from collections.abc import Mapping

import pytest

from qwen_openai.core import Tool
from qwen_openai.grammars import build
from qwen_openai.grammars.guard import Guard
from tests.grammars.schemas import closed
from tests.grammars.test_calls import CLOCK, LOOSE, TOOLS, read
from tests.grammars.texts import matches

PARAMETERS: dict[str, object] = {
    **closed({"city": {"$ref": "#/$defs/c"}, "$ref": {"const": {"$ref": "#"}}}, "$ref"),
    "$defs": {"c": {"enum": ["Paris", "Rome"]}, "near": {"$ref": "#/properties/city"}},
    "$id": "http://a.example/b",
}
BESIDE = (Tool("get_weather", "", PARAMETERS, True), CLOCK, LOOSE)
TEXT: dict[str, object] = {"type": "string"}


def rules(format: Mapping[str, object]) -> Guard:
    answer = build.json_schema(dict(format))
    return Guard(
        build.calls(BESIDE, "hermes", required=False, parallel=True, answer=answer, bare=True)
    )


@pytest.mark.parametrize(
    ("format", "documents"),
    [
        (
            closed({"name": TEXT, "age": {"type": "integer"}}),
            [
                '{"name": "Bob", "age": 3}',
                '{"name": "get_weather", "age": 3}',
                '{"name": "get_weathe", "age": 3}',
                '{"name": "get_weather2", "age": 3}',
                '{"name": "", "age": 3}',
            ],
        ),
        (closed({"nam": TEXT}), ['{"nam": "x"}']),
        (closed({"names": {"type": "array", "items": TEXT}}), ['{"names": ["clock"]}']),
        (
            closed({"name": {"enum": ["get_weather", "get_w", "clocks"]}, "n": TEXT}),
            ['{"name": "get_weather", "n": ""}', '{"name": "clocks", "n": ""}'],
        ),
        (
            closed({"name": {"type": "string", "pattern": "^[a-z_]{1,12}$"}, "n": TEXT}),
            ['{"name": "get_weather", "n": ""}', '{"name": "clocks", "n": ""}'],
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            ['{"name": "clock"}', '{"name": "clockx", "arguments": "x"}', "{}"],
        ),
        (
            {"type": "object", "properties": {"reply": TEXT}, "required": ["reply"]},
            ['{"reply": "x", "name": "clock"}', '{"reply": ""}'],
        ),
        ({"type": "array", "items": closed({"name": TEXT})}, ['[{"name": "clock"}]']),
        (
            {"$ref": "#/$defs/c", "$defs": {"c": closed({"city": TEXT})}},
            ['{"city": "Oslo"}'],
        ),
    ],
)
def test_both_stand_whole_whatever_they_share(
    format: Mapping[str, object], documents: list[str]
) -> None:
    made = rules(format)
    for text in (
        *documents,
        '{"name": "get_weather", "arguments": {"city": "Rome"}}',
        '{"name": "get_weather", "arguments": {"city": "Rome", "$ref": {"$ref": "#"}}}',
        '{"name": "clock", "arguments": {}}',
        '{"name": "loose", "arguments": {"a": [1]}}',
        '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>',
    ):
        guard = made.fresh()
        assert guard.feed(text), text
        assert guard.is_complete
    for text in (
        '{"name": "get_weather", "arguments": {"city": "Oslo"}}',
        '{"name": "get_weather", "arguments": {}}',
        '{"name": "clock", "arguments": {"a": 1}}',
        '{"name": "none", "arguments": {}}',
        '{"name": "clock", "arguments": {}}\n{',
    ):
        assert not made.fresh().feed(text), text


def test_it_is_read_as_a_call() -> None:
    text = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
    assert read(text, "hermes", bare=True) == ("", [("get_weather", {"city": "Rome"})])


def test_without_the_habit_there_is_none() -> None:
    answer = build.json_schema(closed({"a": {}}))
    rules = build.calls(TOOLS, "hermes", required=False, parallel=True, answer=answer)
    assert not matches(rules, '{"name": "clock", "arguments": {}}')
