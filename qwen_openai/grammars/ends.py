"""Whether some finite JSON document satisfies a schema: recursion must have a way out.

Pure. A grammar without an end would have a model write until it is cut. Run by `compiler` in its
child process, since the work may be quadratic in the number of refs.
"""

from collections.abc import Collection, Mapping

from qwen_openai.grammars import schema

_SCALARS = frozenset({"string", "number", "integer", "boolean", "null"})


def can_end(root: object) -> bool:
    """Return whether a document can satisfy `root` without going round in its refs for ever.

    Bounds of numbers and lengths are not looked at: the compiler refuses what contradicts itself.
    """
    refs = {ref for _, node in schema.nodes(root) if isinstance(ref := node.get("$ref"), str)}
    known: set[str] = set()
    # Backwards, because definitions are mostly written before those that they need.
    waiting = sorted(refs, reverse=True)
    while True:
        found = [ref for ref in waiting if _ends(schema.find(root, ref), known)]
        if not found:
            return _ends(root, known)
        known.update(found)
        waiting = [ref for ref in waiting if ref not in known]


def _ends(node: object, known: Collection[str]) -> bool:
    if not isinstance(node, Mapping):
        return node is True
    ref = node.get("$ref")
    if isinstance(ref, str) and ref not in known:
        return False
    for keyword in ("anyOf", "oneOf"):
        inner = node.get(keyword)
        if isinstance(inner, list) and not any(_ends(each, known) for each in inner):
            return False
    inner = node.get("allOf")
    if isinstance(inner, list) and not all(_ends(each, known) for each in inner):
        return False
    return "enum" in node or "const" in node or _value_ends(node, known)


def _value_ends(node: Mapping[str, object], known: Collection[str]) -> bool:
    types = node.get("type")
    allowed = {each for each in (types if isinstance(types, list) else [types])}
    if types is None or allowed & _SCALARS:
        return True
    return ("object" in allowed and _object_ends(node, known)) or (
        "array" in allowed and _array_ends(node, known)
    )


def _object_ends(node: Mapping[str, object], known: Collection[str]) -> bool:
    required, properties = node.get("required"), node.get("properties")
    if not isinstance(required, list):
        return True
    named = properties if isinstance(properties, Mapping) else {}
    other = node.get("additionalProperties", True)
    return all(_ends(named.get(name, other), known) for name in required)


def _array_ends(node: Mapping[str, object], known: Collection[str]) -> bool:
    least, first = node.get("minItems", 0), node.get("prefixItems")
    if not isinstance(least, int) or least <= 0:
        return True
    placed = first if isinstance(first, list) else []
    return all(_ends(each, known) for each in placed[:least]) and (
        least <= len(placed) or _ends(node.get("items", True), known)
    )
