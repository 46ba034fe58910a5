"""Values that a model wrote as plain text, made the JSON that a parameter's schema asks for.

Sans I/O. Knows JSON Schema as far as it says of which type a value is: `type`, `enum`, `const`,
`anyOf`, `oneOf`, `allOf` and references within the schema.
"""

import json
from collections.abc import Mapping

import orjson

from qwen_openai.parsing.json_text import JsonText

# References and alternatives inside each other that are followed.
_DEEPEST = 16
_WORDS = {
    "boolean": {"true": "true", "false": "false"},
    "null": {"null": "null", "none": "null"},
}


def value_types(schema: object, root: Mapping[str, object]) -> frozenset[str]:
    """Return the JSON types that a schema allows, empty where it says nothing of them. `root` is
    the schema that references lead into."""
    return frozenset(_types(schema, root, _DEEPEST))


def coerced(text: str, types: frozenset[str]) -> str:
    """Return text as JSON: as it is where it is JSON of one of the types, else as a string.

    Of types with "string" the others come first; true, false and null may be capitalised, and None
    may stand for null, as chat templates write them in earlier turns.
    """
    word = text.strip()
    for name, words in _WORDS.items():
        if name in types and word.lower() in words:
            return words[word.lower()]
    kind = _kind(word)
    fits = kind in types or (kind == "number" and "integer" in types)
    return word if fits and kind != "string" else quoted(text)


def quoted(text: str) -> str:
    """Return text as a JSON string. Lone surrogates are replaced."""
    try:
        return orjson.dumps(text).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()


def _types(schema: object, root: Mapping[str, object], depth: int) -> set[str]:
    if not isinstance(schema, Mapping) or not depth:
        return set()
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _types(_target(reference, root), root, depth - 1)
    named = schema.get("type")
    if named is not None:
        return {each for each in _listed(named) if isinstance(each, str)}
    values = [schema["const"]] if "const" in schema else _listed(schema.get("enum", []))
    found = {_kind(json.dumps(value)) for value in values}
    for key in ("anyOf", "oneOf", "allOf"):
        for each in _listed(schema.get(key, [])):
            found |= _types(each, root, depth - 1)
    return found


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else [value]


def _target(reference: str, root: Mapping[str, object]) -> object:
    """Return what `#/a/b` points to, None where it leads nowhere or out of the schema."""
    start, *steps = reference.split("/")
    place: object = root if start == "#" else None
    for step in steps:
        key = step.replace("~1", "/").replace("~0", "~")
        place = place.get(key) if isinstance(place, Mapping) else None
    return place


def _kind(text: str) -> str:
    """Return the JSON type of a text, "" where it is no JSON."""
    checker = JsonText()
    # A number is complete only before what follows it.
    end = checker.feed(f"{text} ")
    if not checker.complete or end < len(text):
        return ""
    kinds = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean"}
    return {**kinds, "n": "null"}.get(text[0], "number")
