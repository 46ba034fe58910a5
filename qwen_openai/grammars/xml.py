"""Arguments as one tag a parameter, as Qwen3-Coder and later write them, held to a schema.

Pure text. Strings stand as they are, without quotes; everything else is JSON. A string cannot hold
the closing tag, since no reader could tell.
"""

from collections.abc import Iterator, Mapping

from qwen_openai.errors import InvalidRequest
from qwen_openai.grammars import lark, schema

_END = "\n</parameter>\n"
_NO_CLOSING = r"/(?s:.*)/ & ~/(?s:.*)<\/parameter>(?s:.*)/"
_DATE = (
    r"[0-9]{4}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|02-29|(0[13-9]|1[0-2])-(29|30)"
    r"|(0[13578]|1[02])-31)"
)
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-][01][0-9]:[0-5][0-9])"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# Not all that each format allows, but nothing that it does not.
_FORMATS: Mapping[str, str] = {
    "date": f"/{_DATE}/",
    "time": f"/{_TIME}/",
    "date-time": f"/{_DATE}T{_TIME}/",
    "duration": r"/P([0-9]{1,9}[YMWD]|T[0-9]{1,9}[HMS])/",
    "uuid": r"/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/",
    "email": rf"/[A-Za-z0-9_+-]{{1,64}}@{_LABEL}(\.{_LABEL}){{1,4}}/",
    "hostname": rf"/{_LABEL}(\.{_LABEL}){{0,4}}/",
    "ipv4": rf"/{_BYTE}(\.{_BYTE}){{3}}/",
    "ipv6": r"/([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}/",
    "uri": r"/[a-z][a-z0-9+.\-]{0,20}:[A-Za-z0-9._~:\/?#@!$&'()*+,;=\-]{1,2000}/",
}
_MOST_FREE = 32
_MOST_BRANCHES = 64


def arguments(rule: str, tool: str, root: schema.Schema, *, strict: bool) -> list[str]:
    """Return the rules of the parameters of a call, their root called `rule`.

    Each property stands once at most, in the schema's order, a required one always. A schema that
    names no property allows up to 32 of any name. Raises InvalidRequest where `strict` and the
    schema cannot be written in tags.
    """
    try:
        return _Tags(rule, tool, root, strict=strict).rules()
    except schema.Refused as refused:
        raise InvalidRequest(
            f"Invalid schema for function {tool!r}: {refused}.", param="tools"
        ) from None


class _Tags:
    """The rules of one tool's parameters, collected."""

    def __init__(self, rule: str, tool: str, root: schema.Schema, *, strict: bool) -> None:
        self._rule = rule
        self._tool = tool
        self._root: Mapping[str, object] = root if isinstance(root, dict) else {}
        self._strict = strict
        self._made: list[str] = []

    def rules(self) -> list[str]:
        root = self._resolved(self._root)
        properties = root.get("properties")
        if not isinstance(properties, dict) or not properties:
            closed = root.get("additionalProperties") is False
            return [f'{self._rule}: ""'] if closed else self._free()
        required = root.get("required")
        names = required if isinstance(required, list) else []
        self._demand(set(names) <= properties.keys(), "'required' names what is no property")
        places: list[str] = []
        for index, (name, node) in enumerate(properties.items()):
            if not self._can_stand(name):
                continue
            place = f"{self._rule}_{index}"
            self._property(place, name, node)
            places.append(place if name in names else f"{place}?")
        return [f"{self._rule}: {' '.join(places) or lark.literal('')}", *self._made]

    def _demand(self, holds: bool, otherwise: str) -> None:
        if self._strict and not holds:
            raise schema.Refused(otherwise)

    def _can_stand(self, name: str) -> bool:
        can = bool(name) and not set(name) & set("<>\n")
        self._demand(can, f"no tag can hold the name {name!r}")
        return can

    def _free(self) -> list[str]:
        rule = self._rule
        upper = rule.upper()
        return [
            f"{rule}: {rule}_any{{0,{_MOST_FREE}}}",
            f"{rule}_any: {upper}_NAME {rule}_value",
            f"{upper}_NAME: /<parameter=[A-Za-z_][A-Za-z0-9_.\\-]{{0,63}}>\\n/",
            f"{rule}_value[lazy]: {upper}_VALUE",
            f"{upper}_VALUE: ({_NO_CLOSING}) {lark.literal(_END)}",
        ]

    def _property(self, place: str, name: str, node: object) -> None:
        """Add the rules of one parameter, from its opening tag to its closing one."""
        raw: list[str] = []
        json: list[Mapping[str, object]] = []
        for branch in self._branches(node):
            terminal = _raw(branch)
            if terminal is None:
                json.append(branch)
            else:
                raw += terminal
        values: list[str] = []
        if raw:
            upper = place.upper()
            values.append(f"{place}_raw")
            self._made += [
                f"{place}_raw[lazy]: {upper}_RAW",
                f"{upper}_RAW: ({' | '.join(raw)}) {lark.literal(_END)}",
            ]
        if json and _NO_CLOSING not in raw:
            values.append(f"{place}_json {lark.literal(_END)}")
            self._made += [
                lark.of_function(self._tool),
                f"{place}_json: %json {self._text({'anyOf': json})}",
            ]
        if not values:
            raise schema.Refused(f"nothing can match the property {name!r}")
        start = lark.literal(f"<parameter={name}>\n")
        self._made.append(f"{place}: {start} ({' | '.join(values)})")

    def _text(self, node: Mapping[str, object]) -> str:
        """Return a part of the schema as one of its own, with the definitions it may refer to."""
        shared = {
            keyword: self._root[keyword]
            for keyword in ("$defs", "definitions")
            if keyword in self._root
        }
        return schema.text({**node, **shared}, lenient=not self._strict)

    def _branches(self, node: object) -> Iterator[Mapping[str, object]]:
        """Return the alternatives of a schema, at most one type each."""
        waiting = [node]
        for _ in range(_MOST_BRANCHES):
            if not waiting:
                return
            branch = waiting.pop(0)
            if isinstance(branch, bool):
                waiting += [{}] if branch else []
                continue
            branch = self._resolved(branch if isinstance(branch, dict) else {})
            inner = _alternatives(branch)
            if inner is None:
                yield branch
            else:
                waiting = [*inner, *waiting]
        raise schema.Refused(f"a parameter has more than {_MOST_BRANCHES} alternatives")

    def _resolved(self, node: Mapping[str, object]) -> Mapping[str, object]:
        """Return what a chain of refs without anything beside them points at."""
        for _ in range(schema.MAX_DEPTH):
            ref = node.get("$ref")
            if ref is None:
                return node
            found = schema.find(self._root, ref) if isinstance(ref, str) else None
            if not isinstance(found, dict):
                raise schema.Refused(f"'$ref' {ref!r} points at nothing")
            rest = {key: value for key, value in node.items() if key in _CONSTRAINTS}
            self._demand(not rest, f"'$ref' {ref!r} has other keywords beside it")
            node = found
        raise schema.Refused("its refs lead round in a circle")


_STRING = frozenset({"pattern", "minLength", "maxLength", "format"})
_CONSTRAINTS = frozenset(
    {
        *("type", "enum", "const", "anyOf", "oneOf", "allOf", "properties", "required", "items"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minItems", "maxItems", "prefixItems", "additionalProperties", "patternProperties"),
        *("minProperties", "maxProperties", *_STRING),
    }
)


def _alternatives(node: Mapping[str, object]) -> list[object] | None:
    """Return the schemas that a schema is a choice of and nothing else, None for one alone."""
    types = node.get("type")
    if isinstance(types, list) and "enum" not in node:
        return [{**node, "type": each} for each in types]
    for keyword in ("anyOf", "oneOf"):
        inner = node.get(keyword)
        if isinstance(inner, list) and node.keys() & _CONSTRAINTS == {keyword}:
            return list(inner)
    single = node.get("allOf")
    if isinstance(single, list) and len(single) == 1 and node.keys() & _CONSTRAINTS == {"allOf"}:
        return list(single)
    return None


def _raw(node: Mapping[str, object]) -> list[str] | None:
    """Return the terminals of what stands without JSON's quotes, None for what stands as JSON."""
    values = [node["const"]] if "const" in node else node.get("enum")
    if isinstance(values, list):
        texts = [each if isinstance(each, str) else lark.json_text(each) for each in values]
        return [lark.literal(text) for text in texts if "</parameter>" not in text]
    if not node.keys() & _CONSTRAINTS:
        return [_NO_CLOSING]
    if node.get("type") != "string":
        return None
    return [" & ".join((_NO_CLOSING, *_limits(node)))]


def _limits(node: Mapping[str, object]) -> Iterator[str]:
    """Return the terminals that a string must match all of."""
    least, most = node.get("minLength"), node.get("maxLength")
    if isinstance(least, int) or isinstance(most, int):
        low = least if isinstance(least, int) else 0
        yield f"/(?s:.){{{low},{most if isinstance(most, int) else ''}}}/"
    pattern = node.get("pattern")
    if isinstance(pattern, str):
        yield lark.pattern(_unanchored(pattern))
    limit = _FORMATS.get(str(node.get("format")))
    if limit is not None:
        yield limit


def _unanchored(pattern: str) -> str:
    """Return the expression that matches whole texts in which `pattern` matches somewhere."""
    start = "" if pattern.startswith("^") else "(?s:.*)"
    end = "" if pattern.endswith("$") and not pattern.endswith(r"\$") else "(?s:.*)"
    inner = pattern.removeprefix("^")
    return f"{start}({inner[:-1] if not end else inner}){end}"
