"""Whether an answer in a format could be read as a bare call, told from the format's schema alone.

Pure, and cheap beside compiling: it may say that one could where none can, never the reverse.
A reader decides as soon as it has a name and some arguments (`parsing.bare`), so what stands before
them counts, and nothing behind. Keys come in the order of `properties`, others after them.
"""

from collections.abc import Callable, Collection, Mapping

from qwen_openai.grammars.schema import Schema, find

# As deep as they may go, far within what the stack holds.
_MOST_STEPS = 150
_CALL = frozenset({"name", "arguments"})
_WAYS = frozenset({"$ref", "anyOf", "oneOf", "allOf"})
_SHAPES = frozenset(
    {
        *("type", "enum", "const", "items", "prefixItems"),
        *("properties", "required", "additionalProperties", "patternProperties"),
    }
)
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


def may_be_call(schema: Schema, names: Collection[str]) -> bool:
    """Whether a document of a checked schema could begin like a call of one of `names`, or like a
    list of such calls."""
    return _Formats(schema, names).may_be_call(schema)


class _Formats:
    """Takes a bounded number of steps through one schema; beyond them the answer is yes."""

    def __init__(self, root: Schema, names: Collection[str]) -> None:
        self._root = root
        self._names = names
        self._left = _MOST_STEPS

    def may_be_call(self, node: object) -> bool:
        return self._any(node, self._begins_call, self._value_begins_call)

    def _any(
        self,
        node: object,
        of_type: Callable[[str, Mapping[str, object]], bool],
        of_value: Callable[[object], bool],
    ) -> bool:
        """Whether what is looked for is in one of a schema's alternatives: in one of its types, or
        in one of the values it names."""
        self._left -= 1
        if self._left < 0 or not isinstance(node, dict):
            return node is not False
        ways = node.keys() & _WAYS
        if ways:
            inner = self._alternatives(node, *ways) if len(ways) == 1 else None
            if inner is None or node.keys() & _SHAPES:
                return True
            return any(self._any(each, of_type, of_value) for each in inner)
        values = [node["const"]] if "const" in node else node.get("enum")
        if isinstance(values, list):
            return any(map(of_value, values))
        types = node.get("type", list(_TYPES))
        types = types if isinstance(types, list) else [types]
        return any(str(each) not in _TYPES or of_type(str(each), node) for each in types)

    def _alternatives(self, node: Mapping[str, object], way: str) -> list[object] | None:
        """Return the schemas one of which must match, None where that cannot be told."""
        value = node[way]
        if way == "$ref":
            return [find(self._root, value)] if isinstance(value, str) else None
        if not isinstance(value, list) or (way == "allOf" and len(value) != 1):
            return None
        return value

    def _begins_call(self, type: str, node: Mapping[str, object]) -> bool:
        if type == "array":
            prefix = node.get("prefixItems")
            first = prefix if isinstance(prefix, list) else []
            return any(map(self.may_be_call, [*first, node.get("items", True)]))
        return type == "object" and self._object_begins_call(node)

    def _object_begins_call(self, node: Mapping[str, object]) -> bool:
        given = node.get("properties")
        properties: Mapping[str, object] = given if isinstance(given, dict) else {}
        other = True if node.get("patternProperties") else node.get("additionalProperties", True)
        required = node.get("required")
        order = list(properties)
        last = max(order.index(key) if key in order else len(order) for key in _CALL)
        before = {*order[:last]} - _CALL
        if isinstance(required, list) and any(
            isinstance(key, str) and key in before for key in required
        ):
            return False
        return self._any(
            properties.get("name", other),
            lambda type, _: type == "string",
            self._is_name,
        ) and self._any(
            properties.get("arguments", other),
            # A string may hold an object's text.
            lambda type, _: type in ("object", "string"),
            lambda value: isinstance(value, dict | str),
        )

    def _value_begins_call(self, value: object) -> bool:
        if isinstance(value, list):
            return any(map(self._value_begins_call, value))
        return isinstance(value, dict) and value.keys() >= _CALL and self._is_name(value["name"])

    def _is_name(self, value: object) -> bool:
        return isinstance(value, str) and value in self._names
