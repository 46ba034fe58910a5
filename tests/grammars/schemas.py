"""Schemas and tools as people send them, and many more drawn from a seed: every one can be
enforced, and a short document satisfies it. Tests of every engine run through them."""

import random
from collections.abc import Callable
from datetime import date
from enum import Enum
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from qwen_openai.core import Tool

Schema = dict[str, object]
COUNT = 200
TOOLS = 50


def closed(properties: dict[str, object], *optional: str) -> Schema:
    """An object of these properties alone, all but the optional ones required."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


TEXT: Schema = {"type": "string", "maxLength": 30}
WHOLE: Schema = {"type": "integer", "minimum": 0, "maximum": 1000}


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Step(Closed):
    explanation: str = Field(max_length=40)
    output: str = Field(max_length=20)


class MathReasoning(Closed):
    steps: list[Step] = Field(min_length=1, max_length=2)
    final_answer: str = Field(max_length=20)


class Person(Closed):
    """One of those in a text."""

    name: str = Field(max_length=30, description="as written")
    age: int | None = Field(default=None, ge=0, le=150)
    email: str | None = Field(default=None, max_length=40)
    favourite: Colour = Colour.RED


class Event(Closed):
    id: UUID
    day: date
    kind: Literal["meeting", "trip"]
    guests: list[Person] = Field(max_length=2)


class Cat(Closed):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(Closed):
    kind: Literal["dog"]
    breed: str = Field(max_length=20)


class Pets(Closed):
    pets: list[Cat | Dog] = Field(min_length=1, max_length=2)


class Node(Closed):
    label: str = Field(max_length=10)
    children: "list[Node]" = Field(max_length=2)


class Verdict(Closed):
    is_spam: bool
    confidence: float = Field(ge=0, le=1)
    tags: tuple[Literal["a", "b"], int]


MODELS: tuple[type[BaseModel], ...] = (
    *(Step, MathReasoning, Person, Event, Cat, Dog, Pets, Node, Verdict),
)

HAND_WRITTEN: tuple[Schema, ...] = (
    {"type": "boolean"},
    {"type": "null"},
    {"const": "exactly \"this\"\n\u00e9\U0001f600 </think> <tool_call> }"},
    {"enum": ["yes", "no", None, 3, 2.5, True, ["a"], {"b": 1}]},
    {"type": "integer", "minimum": -5, "maximum": 5},
    {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "email", "maxLength": 40},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "made-up", "maxLength": 8},
    {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
    {"type": "string", "pattern": "^\\+?[0-9 ]{3,12}$"},
    {"type": "string", "minLength": 3, "maxLength": 12},
    {"type": ["string", "null"], "maxLength": 12},
    {"type": ["integer", "boolean"], "maximum": 9, "minimum": 0},
    {"type": "array", "items": WHOLE, "minItems": 1, "maxItems": 3},
    {"type": "array", "prefixItems": [TEXT, WHOLE], "items": False, "minItems": 2},
    {"type": "array", "items": {"enum": ["n", "e", "s", "w"]}, "maxItems": 4},
    {"type": "array", "maxItems": 0},
    {"type": "object", "additionalProperties": WHOLE, "maxProperties": 2},
    {"type": "object", "properties": {}, "additionalProperties": False},
    {"anyOf": [TEXT, WHOLE, {"type": "null"}]},
    {"anyOf": [closed({"a": WHOLE}), closed({"b": TEXT})]},
    {"oneOf": [closed({"k": {"const": "x"}, "v": WHOLE}), closed({"k": {"const": "y"}})]},
    {"allOf": [{"type": "object", "properties": {"a": WHOLE}}, closed({"a": {"minimum": 3}})]},
    {
        **closed({"value": WHOLE, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}),
        "description": "a list, linked",
    },
    {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://example.com/tree.json",
        "definitions": {
            "tree": closed(
                {
                    "name": TEXT,
                    "kids": {
                        "type": "array",
                        "items": {"$ref": "#/definitions/tree"},
                        "maxItems": 1,
                    },
                }
            )
        },
        "$ref": "#/definitions/tree",
    },
    {
        "$defs": {"a/b ~": {"type": "integer", "enum": [1, 2]}},
        **closed({"x": {"$ref": "#/$defs/a~1b%20~0"}}),
    },
    closed({"city": TEXT, "unit": {"enum": ["celsius", "fahrenheit"]}}, "unit"),
    closed({"a": WHOLE, "b": WHOLE, "c": WHOLE}, "a", "b", "c"),
    closed({"quote\"d": WHOLE, "back\\slash": WHOLE, "line\nbreak": WHOLE, "é": WHOLE, "": WHOLE}),
    closed({"not": {"type": "boolean"}, "$ref": TEXT, "if": WHOLE, "x-guidance": WHOLE}),
    closed({"list": {"type": "array", "uniqueItems": False, "items": WHOLE, "maxItems": 2}}),
    {**closed({"title": TEXT}), "title": "T", "examples": [{}], "x-mine": {"not": 1}},
    closed({"invoice": closed({"lines": {"type": "array", "items": closed({"sku": TEXT,
        "quantity": {"type": "integer", "minimum": 1, "maximum": 9}}), "maxItems": 2},
        "total": {"type": "number", "minimum": 0, "maximum": 100}})}),
    {"type": "object", "patternProperties": {"^x_": WHOLE}, "additionalProperties": False,
     "maxProperties": 2},
)  # fmt: skip


def _leaf(rng: random.Random) -> Schema:
    kinds: list[Callable[[], Schema]] = [
        lambda: {"type": "string", "maxLength": rng.randint(1, 30)},
        lambda: {"type": "integer", "minimum": (low := rng.randint(-50, 50)), "maximum": low + 40},
        lambda: {"type": "number", "minimum": 0, "maximum": rng.randint(1, 500)},
        lambda: {"type": "boolean"},
        lambda: {"enum": rng.sample(["red", "green", "blue", "1", "", "été", "a b"], 3)},
        lambda: {"const": rng.choice([1, "one", None, True, "<tool_call>"])},
        lambda: {"type": "string", "format": rng.choice(["date", "time", "uuid", "date-time"])},
        lambda: {"type": "string", "pattern": rng.choice(["^[a-z]{1,8}$", "^[0-9]{2}:[0-9]{2}$"])},
        lambda: {"type": [rng.choice(["integer", "boolean"]), "null"]},
    ]
    return rng.choice(kinds)()


def _drawn(rng: random.Random, depth: int) -> Schema:
    if depth == 0 or rng.random() < 0.25:
        return _leaf(rng)
    kind = rng.choice(["object", "object", "object", "array", "anyOf"])
    if kind == "array":
        return {"type": "array", "items": _drawn(rng, depth - 1), "maxItems": rng.randint(1, 3)}
    if kind == "anyOf":
        return {"anyOf": [_drawn(rng, depth - 1), {"type": "null"}]}
    return _drawn_object(rng, depth)


def _drawn_object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(["name", "city", "size", "kind", "when", "note", "total", "tags"], 3)
    named = names[: rng.randint(1, 3)]
    optional = [name for name in named if rng.random() < 0.3]
    made = closed({name: _drawn(rng, depth - 1) for name in named}, *optional)
    if rng.random() < 0.2:
        made["description"] = f"about {' and '.join(named)}"
    return made


def schemas() -> list[Schema]:
    """All `COUNT` of them, the same at every call."""
    rng = random.Random(20261122)
    made = [*HAND_WRITTEN, *(model.model_json_schema() for model in MODELS)]
    shared = {"$defs": {"id": {"type": "integer", "minimum": 1, "maximum": 99}}}
    while len(made) < COUNT:
        drawn = _drawn_object(rng, rng.randint(1, 3))
        if rng.random() < 0.2:
            drawn = {**closed({"id": {"$ref": "#/$defs/id"}, "data": drawn}), **shared}
        made.append(drawn)
    return made


_NAMED: tuple[Tool, ...] = (
    Tool("get_time", "The time now."),
    Tool("get_weather", "", closed({"city": TEXT, "unit": {"enum": ["C", "F"]}}, "unit")),
    Tool("search", "Search.", closed({"query": TEXT, "limit": {"type": ["integer", "null"]}})),
    Tool("send-mail", "Send.", closed({"to": {"type": "string", "format": "email"}, "body": TEXT})),
    Tool("book", "Book a trip.", Event.model_json_schema()),
    Tool("add_people", "Add people.", closed({"people": {"type": "array", "items": closed(
        {"name": TEXT, "age": WHOLE}), "maxItems": 2}})),
    Tool("plot", "Plot.", {"type": "object", "properties": {"tree": {"$ref": "#/$defs/Node"}},
        "required": ["tree"], "additionalProperties": False,
        "$defs": Node.model_json_schema()["$defs"]}),
)  # fmt: skip


def tools() -> list[Tool]:
    """All `TOOLS` of them, every second one strict, the same at every call."""
    rng = random.Random(20261123)
    made = list(_NAMED)
    while len(made) < TOOLS:
        made.append(Tool(f"tool_{len(made)}", "Does it.", _drawn_object(rng, rng.randint(1, 3))))
    return [
        Tool(tool.name, tool.description, tool.parameters, strict=index % 2 == 0)
        for index, tool in enumerate(made)
    ]
