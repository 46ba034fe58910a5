"""JSON Schemas in grammars: which ones can be held to, and their text for `%json`.

Pure. What is refused here is refused with its name: keywords that llguidance cannot enforce, refs
that leave the document, and sizes that nobody means. Whether the rest compiles, and whether
anything matches it, `compiler` finds out. Source of the subset: llguidance's docs/json_schema.md.
"""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

import orjson

from qwen_openai.errors import InvalidRequest

MAX_DEPTH = 64
MAX_BYTES = 256 * 1024
MAX_ENUM = 5_000
MAX_LEAST = 10_000

Schema = Mapping[str, object] | bool

# JSON with one blank behind commas and colons, as models write it, and nowhere else: with free
# blanks a small model may write nothing but blanks.
TIGHT: Mapping[str, object] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
# JSON laid out in any way, within reason, for what a model writes unasked.
LOOSE: Mapping[str, object] = {"whitespace_pattern": "[ \\n]{1,40}"}

ANY_OBJECT: Mapping[str, object] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, object] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}

_UNSUPPORTED = frozenset(
    {
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems"),
        *("propertyNames", "dependentRequired", "dependentSchemas", "dependencies"),
        *("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"),
    }
)
# Keywords whose value is a schema, a list of schemas, or schemas by name.
_SCHEMA_IN = frozenset({"items", "additionalProperties", "additionalItems", *_UNSUPPORTED})
_SCHEMAS_IN = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_NAMED_IN = frozenset({"properties", "patternProperties", "$defs", "definitions"})
# Keywords whose value is no schema, whatever it looks like.
_VALUES_IN = frozenset({"enum", "const", "default", "examples"})

# Formats that are enforced; others say something to people only, as the specification has it.
FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6"),
        *("uuid", "uri"),
    }
)


class Refused(Exception):
    """A schema that cannot be enforced, and why: a clause that begins in lower case."""


def checked(schema: Schema, what: str, param: str) -> Schema:
    """Return `schema`, or raise InvalidRequest at `param` where it cannot be enforced.

    `what` is whose schema it is, for the message: "response_format", "function 'f'".
    """
    try:
        check(schema)
    except Refused as refused:
        message = f"Invalid schema for {what}: {refused}."
        raise InvalidRequest(message, param=param) from None
    return schema


def check(schema: Schema) -> None:
    """Raise Refused where `schema` is too large or uses what cannot be enforced."""
    measure(schema)
    for place, node in nodes(schema):
        _check_keywords(place, node)


def measure(value: object) -> None:
    """Raise Refused where a JSON value is deeper or larger than a schema may be; takes time in its
    size, and no stack."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for each in level for child in _children(each)]
        if not level:
            break
    else:
        raise Refused(f"it is nested more than {MAX_DEPTH} levels deep")
    try:
        size = len(orjson.dumps(value))
    except orjson.JSONEncodeError as error:
        raise Refused(f"it is no JSON ({error})") from None
    if size > MAX_BYTES:
        raise Refused(f"it has {size} bytes, at most {MAX_BYTES} are possible")


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return [each for each in value.values() if isinstance(each, dict | list)]
    if isinstance(value, list):
        return [each for each in value if isinstance(each, dict | list)]
    return []


def nodes(schema: object, place: str = "#") -> Iterator[tuple[str, Mapping[str, object]]]:
    """Return every schema in a schema that `measure` passed, itself first, with its place: never
    what only looks like one (the values of `enum`, the names of properties)."""
    if not isinstance(schema, dict):
        return
    yield place, schema
    for keyword, value in schema.items():
        here = f"{place}/{keyword}"
        if keyword in _NAMED_IN and isinstance(value, dict):
            for name, each in value.items():
                yield from nodes(each, f"{here}/{name}")
        elif keyword in _SCHEMAS_IN and isinstance(value, list):
            for index, each in enumerate(value):
                yield from nodes(each, f"{here}/{index}")
        elif keyword in _SCHEMA_IN:
            yield from nodes(value, here)


def _check_keywords(place: str, node: Mapping[str, object]) -> None:
    for keyword in node:
        if keyword in _UNSUPPORTED and not _says_nothing(keyword, node[keyword]):
            raise Refused(f"{keyword!r} (at {place}) is not supported; leave it out")
    ref = node.get("$ref")
    if ref is not None and not (isinstance(ref, str) and ref.startswith("#")):
        raise Refused(
            f"'$ref' (at {place}) must point into the schema itself, like '#/$defs/Name'; "
            "nothing is fetched from elsewhere"
        )
    if "$id" in node and place != "#":
        raise Refused(f"'$id' (at {place}) is not supported inside a schema; leave it out")
    values = node.get("enum")
    if isinstance(values, list) and len(values) > MAX_ENUM:
        raise Refused(
            f"'enum' (at {place}) has {len(values)} values, at most {MAX_ENUM} are possible"
        )
    for keyword in ("minLength", "minItems", "minProperties"):
        least = node.get(keyword)
        if isinstance(least, int) and least > MAX_LEAST:
            raise Refused(f"{keyword!r} (at {place}) asks for {least}, more than an answer holds")


def _says_nothing(keyword: str, value: object) -> bool:
    return keyword == "uniqueItems" and value is False


def text(schema: Schema, layout: Mapping[str, object] = TIGHT, *, lenient: bool = False) -> str:
    """Return the text of a checked schema for `%json`, its JSON written in `layout`.

    With `lenient` what cannot be enforced is left out, instead of being refused by the compiler.
    """
    root = dict(plain(schema)) if isinstance(schema, dict) else {} if schema else {"enum": []}
    for keyword in ("$schema", "$id"):  # no dialect and no base changes what a ref in here means
        root.pop(keyword, None)
    root["x-guidance"] = {**layout, "lenient": True} if lenient else dict(layout)
    return orjson.dumps(root).decode().replace("\x7f", "\\u007f")


def plain(schema: Mapping[str, object]) -> dict[str, object]:
    """Return a schema without what says nothing to a grammar but would be refused by it."""
    kept: dict[str, object] = {}
    for keyword, value in schema.items():
        if _says_nothing(keyword, value) or _is_annotation(keyword, value):
            continue
        if keyword in _NAMED_IN and isinstance(value, dict):
            kept[keyword] = {name: _plain(each) for name, each in value.items()}
        elif keyword in _SCHEMAS_IN and isinstance(value, list):
            kept[keyword] = [_plain(each) for each in value]
        elif keyword in _SCHEMA_IN:
            kept[keyword] = _plain(value)
        else:
            kept[keyword] = value
    return kept


def _plain(schema: object) -> object:
    return plain(schema) if isinstance(schema, dict) else schema


def placed(schema: Schema, place: str) -> Schema:
    """Return a schema as it must be written at `place` ("#/properties/x") of another, so that its
    refs still point into itself."""
    if not isinstance(schema, dict):
        return schema
    return {
        keyword: _placed(keyword, value, place)
        for keyword, value in schema.items()
        if keyword not in ("$schema", "$id")
    }


def _placed(keyword: str, value: object, place: str) -> object:
    if keyword == "$ref" and isinstance(value, str):
        return place + value.removeprefix("#")
    if isinstance(value, dict) and keyword in _NAMED_IN:
        return {name: _placed("", each, place) for name, each in value.items()}
    if isinstance(value, dict) and keyword not in _VALUES_IN:
        return {inner: _placed(inner, each, place) for inner, each in value.items()}
    if isinstance(value, list) and keyword not in _VALUES_IN:
        return [_placed("", each, place) for each in value]
    return value


def _is_annotation(keyword: str, value: object) -> bool:
    return keyword == "x-guidance" or (keyword == "format" and value not in FORMATS)


def relaxed(schema: Schema) -> Schema:
    """Return a schema that allows no less than `schema` and that most likely compiles leniently;
    where nothing but any object will do, that."""
    try:
        measure(schema)
    except Refused:
        return ANY_OBJECT
    if not isinstance(schema, dict) or not all(_is_simple(node) for _, node in nodes(schema)):
        return ANY_OBJECT
    return schema


def _is_simple(node: Mapping[str, object]) -> bool:
    ref, pattern, values, all_of = (
        node.get(keyword) for keyword in ("$ref", "pattern", "enum", "allOf")
    )
    return (
        (ref is None or (isinstance(ref, str) and ref.startswith("#/")))
        and (pattern is None or (isinstance(pattern, str) and _is_regular(pattern)))
        and (values is None or (isinstance(values, list) and 0 < len(values) <= MAX_ENUM))
        and (all_of is None or (isinstance(all_of, list) and len(all_of) == 1))
    )


def _is_regular(pattern: str) -> bool:
    """Whether a regular expression has nothing of what only backtracking can match."""
    return re.search(r"\(\?[=!<P]|\\[bBAZzGk1-9]", pattern) is None


def find(root: object, ref: str) -> object:
    """Return what a ref inside a schema points at ("#/$defs/Name"), None where there is nothing."""
    if ref == "#":
        return root
    node = root
    for step in ref.removeprefix("#/").split("/"):
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node
