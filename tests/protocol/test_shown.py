"""What of a caller's value gets into an error message."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.protocol.shown import shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.01, "2.01"),
        (5, "5"),
        (True, "true"),
        (None, "null"),
        ("hot", '"hot"'),
        ("", '""'),
        ('a"b\n', r'"a\"b\n"'),
        ([], "an empty list"),
        ([1, 2], "a list of 2"),
        ({"secret": 1}, "an object"),
        ("x" * 100, '"' + "x" * 60 + '…"'),
    ],
)
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text


@given(st.text(alphabet=st.characters(), max_size=200) | st.integers() | st.floats())
def test_short_and_encodable(value: object) -> None:
    assert len(shown(value)) <= 80
    orjson.dumps(shown(value))


def test_lone_surrogates_and_control_characters() -> None:
    assert shown("\ud800") == '"?"'
    assert len(shown("\x00" * 1000)) <= 80
