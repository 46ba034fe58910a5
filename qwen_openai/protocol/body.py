"""Body bytes to a JSON object, or an error that says where the JSON breaks.

Knows JSON, nothing of any endpoint. orjson is strict where Python's parser is not: NaN, Infinity,
numbers beyond a double, lone surrogates, a byte order mark and other encodings than UTF-8 are
refused. A key that occurs twice has its last value; the raw bytes are never looked at again, so
what is checked is what runs.
"""

import re

import orjson

from qwen_openai.errors import InvalidJson, InvalidRequest
from qwen_openai.protocol.shown import shown

# Parsing holds the interpreter: 8 MiB of "[]," would hold it for most of a second. Up to this many
# containers and keys take some hundredths of one. The longest conversation of messages with calls
# has 30,000; text that fills the longest context has as many, if it is all JSON.
MAX_VALUES = 50_000

_KEY_BEFORE = re.compile(r'"([A-Za-z_][A-Za-z0-9_]{0,63})"\s{0,16}:\s{0,16}-?$')


def parse_object(raw: bytes, *, bulk: str | None = None) -> dict[str, object]:
    """Return the JSON object in `raw`.

    Raises InvalidJson with line and column (and `param`, where the break is a member's value) for
    anything that is no JSON, InvalidRequest for JSON that is no object or holds too many values;
    the latter names `bulk`, the member that bodies of this kind consist of.
    """
    if len(raw) > MAX_VALUES:
        _check_size(raw, bulk)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _explain(error, raw) from None
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"The body must be a JSON object; expected an object, got {shown(value)}."
        )
    return value


def _check_size(raw: bytes, bulk: str | None) -> None:
    """Refuse by counting bytes, before any value is made. A colon stands for a key, whatever blanks
    are before it. Brackets and colons in text count too: text with so many is beyond most contexts.
    """
    if raw.count(b"{") + raw.count(b"[") + raw.count(b":") > MAX_VALUES:
        raise InvalidRequest(
            f"The body holds more than {MAX_VALUES} arrays, objects and keys (brackets and colons "
            "in text count too); send less in one request.",
            param=bulk,
        )


def _explain(error: orjson.JSONDecodeError, raw: bytes) -> InvalidJson:
    if not raw:
        return InvalidJson("The body is empty; send a JSON object (line 1, column 1).")
    try:
        raw.decode()
    except UnicodeDecodeError as broken:
        return InvalidJson(
            f"The body is not valid JSON: it is not UTF-8 text (byte {broken.start}). "
            "Send JSON encoded as UTF-8."
        )
    key = _KEY_BEFORE.search(error.doc[max(error.pos - 100, 0) : error.pos])
    return InvalidJson(
        f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
        param=key[1] if key else None,
    )
