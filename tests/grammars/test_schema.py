"""JSON Schemas: what a value's own text must match, what is refused by name, what is relaxed."""

import json
from collections.abc import Mapping

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_openai.errors import InvalidRequest
from qwen_openai.grammars import build, schema
from qwen_openai.grammars.ends import can_end
from qwen_openai.grammars.guard import Guard
from tests.grammars import schemas
from tests.grammars.schemas import closed
from tests.grammars.texts import matches

# DEL alone must be escaped, which Python does not do.
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"))
WHOLES = st.integers(-(10**6), 10**6)
VALUES: "st.SearchStrategy[object]" = st.recursive(
    st.none() | st.booleans() | WHOLES | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
TREE: "st.SearchStrategy[object]" = st.recursive(
    WHOLES.map(lambda number: {"n": number, "kids": []}),
    lambda inner: st.tuples(WHOLES, st.lists(inner, max_size=2)).map(
        lambda drawn: {"n": drawn[0], "kids": drawn[1]}
    ),
    max_leaves=5,
)
LETTERS = st.text(alphabet="abc", min_size=1, max_size=8)

ENUM: list[object] = ["a", 1, None, True, {"b": [2]}]

# A schema, and values that satisfy it.
PAIRS: dict[str, tuple[Mapping[str, object], "st.SearchStrategy[object]"]] = {
    "anything": ({}, VALUES),
    "any object": ({"type": "object"}, st.dictionaries(TEXTS, VALUES, max_size=3)),
    "string": ({"type": "string"}, TEXTS),
    "short string": (
        {"type": "string", "minLength": 2, "maxLength": 5},
        TEXTS.filter(lambda text: 2 <= len(text) <= 5),
    ),
    "pattern": ({"type": "string", "pattern": "^[abc]+$"}, LETTERS),
    "part of it": ({"type": "string", "pattern": "b"}, LETTERS.map(lambda text: text + "b")),
    "date": ({"type": "string", "format": "date"}, st.dates().map(str)),
    "uuid": ({"type": "string", "format": "uuid"}, st.uuids().map(str)),
    "bounds": ({"type": "integer", "minimum": -7, "maximum": 130}, st.integers(-7, 130)),
    "steps": ({"type": "integer", "multipleOf": 3}, WHOLES.map(lambda number: number * 3)),
    "share": (
        {"type": "number", "minimum": 0, "maximum": 1},
        st.integers(0, 1000).map(lambda number: number / 1000),
    ),
    "enum": ({"enum": ENUM}, st.sampled_from(ENUM)),
    "array": (
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
        st.lists(st.booleans(), min_size=1, max_size=4),
    ),
    "tuple": (
        {"type": "array", "prefixItems": [{"type": "null"}, {"type": "integer"}], "items": False,
         "minItems": 2},
        WHOLES.map(lambda number: [None, number]),
    ),
    "object": (
        closed({"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "null"}}, "b"),
        st.tuples(WHOLES, TEXTS, st.booleans()).map(
            lambda drawn: {"a": drawn[0], **({"b": drawn[1]} if drawn[2] else {}), "c": None}
        ),
    ),
    "map": (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        st.dictionaries(TEXTS, WHOLES, max_size=4),
    ),
    "one or none": ({"anyOf": [{"type": "string"}, {"type": "null"}]}, st.none() | TEXTS),
    "tree": (
        {
            "$defs": {
                "t": closed(
                    {
                        "n": {"type": "integer"},
                        "kids": {"type": "array", "items": {"$ref": "#/$defs/t"}},
                    }
                )
            },
            "$ref": "#/$defs/t",
        },
        TREE,
    ),
}  # fmt: skip

PARTS = {name: Guard(build.json_schema(dict(pair[0]))) for name, pair in PAIRS.items()}


def accepts(name: str, text: str) -> bool:
    guard = PARTS[name].fresh()
    return guard.feed(text) and guard.is_complete


@pytest.mark.parametrize("name", PAIRS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_text_of_what_satisfies_a_schema_matches(name: str, data: st.DataObject) -> None:
    value = data.draw(PAIRS[name][1])
    assert accepts(name, json.dumps(value, ensure_ascii=False))


@pytest.mark.parametrize("name", PAIRS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_mutilated_text_matches_only_if_it_still_satisfies(
    name: str, data: st.DataObject
) -> None:
    text = json.dumps(data.draw(PAIRS[name][1]), ensure_ascii=False)
    at = data.draw(st.integers(0, len(text)))
    put = data.draw(
        st.sampled_from(["", '"', "}", "]", ",", "0", "-", " ", "\n", "x", "null", "\\"])
    )
    other = text[:at] + put + text[at + 1 :]
    if accepts(name, other):
        jsonschema_rs.validate(dict(PAIRS[name][0]), json.loads(other))


@pytest.mark.parametrize("keyword", sorted(schema._UNSUPPORTED))
@pytest.mark.parametrize("where", ["top", "deep", "unused"])
def test_what_cannot_be_enforced_is_refused_by_name(keyword: str, where: str) -> None:
    part: dict[str, object] = {keyword: True}
    whole: dict[str, dict[str, object]] = {
        "top": part,
        "deep": {"properties": {"a": {"items": {"anyOf": [part]}}}},
        "unused": {"$defs": {"a": part}},
    }
    with pytest.raises(InvalidRequest) as caught:
        build.json_schema(whole[where])
    assert caught.value.message.startswith("Invalid schema for response_format: ")
    assert repr(keyword) in caught.value.message
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("keyword", sorted(schema._UNSUPPORTED))
def test_names_and_values_that_look_like_keywords_are_none(keyword: str) -> None:
    looks = {"properties": {keyword: {"const": {keyword: 1}}}, "default": {keyword: 1}}
    assert matches(
        build.json_schema({"type": "object", **looks}), f'{{"{keyword}": {{"{keyword}": 1}}}}'
    )


def test_bounds_on_the_schema_itself() -> None:
    deep: dict[str, object] = {"type": "null"}
    for _ in range(100_000):
        deep = {"items": deep}
    with pytest.raises(InvalidRequest, match="nested more than 64 levels"):
        build.json_schema(deep)
    with pytest.raises(InvalidRequest, match="at most 262144"):
        build.json_schema({"description": "x" * 300_000})
    with pytest.raises(InvalidRequest, match="no JSON"):
        build.json_schema({"const": 2**70})
    while deep:  # a structure this deep must be taken apart before it is freed
        deep = deep.pop("items", {})  # type: ignore[assignment]  # a schema, as built above


def test_as_deep_as_is_allowed_compiles() -> None:
    deep: dict[str, object] = {"type": "null"}
    for _ in range(60):
        deep = {"type": "array", "items": deep, "minItems": 1, "maxItems": 1}
    assert matches(build.json_schema(deep), "[" * 60 + "null" + "]" * 60)


def test_nobody_but_us_sets_llguidances_options() -> None:
    given: dict[str, object] = {"type": "object", "x-guidance": {"lenient": True}, "not": {}}
    with pytest.raises(InvalidRequest, match="'not'"):
        build.json_schema(given)
    free: dict[str, object] = {"type": "object", "x-guidance": {"whitespace_flexible": True}}
    assert not matches(build.json_schema(free), '{"a":1}')


def test_the_parameter_at_fault_is_the_callers() -> None:
    with pytest.raises(InvalidRequest, match="Invalid schema for structured_outputs: ") as caught:
        build.json_schema({"not": {}}, param="structured_outputs.json")
    assert caught.value.param == "structured_outputs.json"


@pytest.mark.parametrize(
    "given",
    [
        {"type": "object", "properties": {"a": {"not": {}}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"pattern": "(?!x)y", "type": "string"}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"enum": []}}},
        {"type": "object", "properties": {"a": {"format": "int32", "type": "integer"}}},
        {"properties": {"a": {"oneOf": [{"type": ["number", "string"]}, {"type": "integer"}]}}},
        {"type": "object", "dependentRequired": {"a": ["b"]}, "if": {}, "then": {}},
    ],
)  # fmt: skip
def test_a_relaxed_schema_allows_what_the_given_one_does(given: dict[str, object]) -> None:
    text = schema.text(schema.relaxed(given), lenient=True)
    assert not PARTS["anything"].fresh().feed("]")
    assert matches(f"answer: %json {text}", '{"a": 5}') or matches(
        f"answer: %json {text}", '{"a": "y"}'
    )


@pytest.mark.parametrize("given", schemas.schemas())
def test_every_schema_of_the_corpus_can_end(given: dict[str, object]) -> None:
    assert can_end(given)
