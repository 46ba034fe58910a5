"""Plain text made the JSON that a schema asks for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.parsing.coerce import coerced, quoted, value_types

ROOT: dict[str, object] = {
    "$defs": {
        "a/b~c": {"type": "object"},
        "again": {"$ref": "#/$defs/again"},
        "many": {"anyOf": [{"$ref": "#/$defs/many"}] * 1},
    }
}


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["integer", "null", 5]}, {"integer", "null"}),
        ({"anyOf": [{"type": "string"}, {"oneOf": [{"type": "array"}]}]}, {"string", "array"}),
        ({"allOf": [{"$ref": "#/$defs/a~1b~0c"}]}, {"object"}),
        ({"enum": [1, "a", None, True]}, {"number", "string", "null", "boolean"}),
        ({"const": [1]}, {"array"}),
        ({"$ref": "#/$defs/again"}, set()),
        ({"$ref": "#/$defs/many"}, set()),
        ({"$ref": "#/nowhere/at/all"}, set()),
        ({"$ref": "http://example.com/a"}, set()),
        ({"anyOf": 5}, set()),
        ({}, set()),
        (True, set()),
        (None, set()),
    ],
)
def test_the_types_that_a_schema_allows(schema: object, types: set[str]) -> None:
    assert value_types(schema, ROOT) == types


@pytest.mark.parametrize(
    ("text", "types", "made"),
    [
        ("5", {"string"}, '"5"'),
        ("5", set(), '"5"'),
        (" 5\n", {"integer"}, "5"),
        ("5", {"string", "integer"}, "5"),
        ("5.5", {"number"}, "5.5"),
        ("05", {"integer"}, '"05"'),
        ("5 6", {"integer"}, '"5 6"'),
        ("", {"integer"}, '""'),
        ("True", {"boolean"}, "true"),
        ("yes", {"boolean"}, '"yes"'),
        ("None", {"null", "string"}, "null"),
        ("none", {"string"}, '"none"'),
        ('{"a": 1}', {"object"}, '{"a": 1}'),
        ("{'a': 1}", {"object"}, "\"{'a': 1}\""),
        ("[1]", {"object"}, '"[1]"'),
        ('"a"', {"string", "null"}, '"\\"a\\""'),
    ],
)
def test_text_as_json(text: str, types: set[str], made: str) -> None:
    assert coerced(text, frozenset(types)) == made


@given(
    st.text(), st.frozensets(st.sampled_from(["string", "integer", "object", "null", "boolean"]))
)
def test_any_text_becomes_json(text: str, types: frozenset[str]) -> None:
    json.loads(coerced(text, types))
    assert json.loads(quoted(text)) == text.encode("utf-8", "replace").decode()
