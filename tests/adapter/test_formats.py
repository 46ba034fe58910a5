"""What an answer must look like: each parameter to the rules that enforce it."""

import pytest

from qwen_openai.adapter.formats import format_of
from qwen_openai.core import Grammar
from qwen_openai.errors import InvalidRequest
from qwen_openai.grammars import build
from tests.protocol.bodies import parsed

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def json_schema(**more: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, **more}}


@pytest.mark.parametrize(
    ("format", "rules"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, build.json_object()),
        (json_schema(), build.json_schema(dict(SCHEMA))),
        (json_schema(strict=True), build.json_schema(dict(SCHEMA))),
        (json_schema(strict=False), build.json_schema(dict(SCHEMA))),
    ],
)
def test_response_format(format: object, rules: str | None) -> None:
    made = format_of(parsed(response_format=format))
    assert made == (None if rules is None else Grammar(rules, "response_format"))


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        ({"json": SCHEMA}, build.json_schema(dict(SCHEMA))),
        ({"json": '{"type": "integer"}'}, build.json_schema({"type": "integer"})),
        ({"json_object": True}, build.json_object()),
        ({"regex": "[ab]+"}, build.regex("[ab]+")),
        ({"choice": ["a", "b"]}, build.choice(["a", "b"])),
        ({"grammar": 'root ::= "x"'}, build.custom('root ::= "x"')),
    ],
)
def test_structured_outputs(given: object, rules: str) -> None:
    made = format_of(parsed(structured_outputs=given))
    assert made == Grammar(rules, "structured_outputs")


def test_a_schema_that_cannot_be_enforced_is_named_where_it_came() -> None:
    far = {"$ref": "https://example.com/schema.json"}
    with pytest.raises(InvalidRequest) as caught:
        format_of(parsed(structured_outputs={"json": far}))
    assert (caught.value.param or "").startswith("structured_outputs")
