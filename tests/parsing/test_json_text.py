"""The incremental reader of JSON says what a whole parser says, wherever the text is split."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.parsing.json_text import JsonText
from tests.parsing.split import split


def read(text: str, cuts: list[int]) -> tuple[bool, bool, int]:
    reader = JsonText()
    end = 0
    for piece in split(text, cuts):
        read = reader.feed(piece)
        end += read
        if read < len(piece) or reader.complete or reader.broken:
            break
    return reader.complete, reader.broken, end


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
places = st.lists(st.integers(0, 100), max_size=6)


@given(values, st.booleans(), st.sampled_from([None, 1]), places)
def test_what_is_json_is_read_to_its_end(
    value: object, ascii_only: bool, indent: int | None, cuts: list[int]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert read(f" {text}", cuts)[1:] == (False, len(text) + 1)
    assert read(f"{text},{text}", cuts) == (True, False, len(text))


bits = st.sampled_from(
    [*'{}[]",:\\-+.eE019 \n\t\x01tfnu', "true", "null", "\\u00", "\\ud83d", "ude0", '"a"', "é"]
)


@given(st.lists(bits, max_size=12).map("".join), places)
def test_it_says_what_orjson_says(text: str, cuts: list[int]) -> None:
    complete, broken, end = read(f"{text} ", cuts)
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        assert broken or not complete or text[end:].strip()
    else:
        assert complete
        assert not text[end:].strip()
    assert read(f"{text} ", list(range(len(text)))) == (complete, broken, end)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ('{"a": 1,}', 8),
        ("{'a': 1}", 1),
        ("[01]", 2),
        ("[1.]", 3),
        ("[.5]", 1),
        ("[+1]", 1),
        ("[1e]", 3),
        ("[--1]", 2),
        ("[NaN]", 1),
        ("[nul]", 4),
        ("[1 2]", 3),
        ("[1}", 2),
        ('{"a" 1}', 5),
        ('{"a": "\n"}', 7),
        ('["\\x"]', 3),
        ('["\\u00g0"]', 6),
        ('["\\ud800"]', 8),
        ('["\\ud800\\n"]', 9),
        ('["\\udc00"]', 7),
        ("]", 0),
        ("[" * 129, 129),
    ],
)
def test_it_stops_at_what_cannot_be(text: str, end: int) -> None:
    assert read(text, []) == (False, True, end)
    assert read(text, list(range(len(text)))) == (False, True, end)


def test_depth_has_a_bound() -> None:
    assert read("[" * 128 + "]" * 128, []) == (True, False, 256)


def test_it_pauses_before_what_should_be_an_escape() -> None:
    reader = JsonText(pauses=True)
    text = '{"a": "b\n\tc",\n"d": 1}'
    assert (reader.feed(text), reader.at_raw) == (8, True)
    assert (reader.feed(text, 8), reader.at_raw) == (8, True)
    assert (reader.feed(text, 9), reader.at_raw) == (9, True)
    assert (reader.feed(text, 10), reader.at_raw, reader.complete) == (len(text), False, True)


@pytest.mark.parametrize("text", ['{"a\n', '["\0', '["\b', '["\\ud83d\n', '["\\\n', "[\f"])
def test_it_breaks_at_all_else(text: str) -> None:
    reader = JsonText(pauses=True)
    assert (reader.feed(text), reader.broken, reader.at_raw) == (len(text) - 1, True, False)
