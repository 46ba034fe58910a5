"""Threat rows 1 to 6, 8 and 9 at the level of the body."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.errors import InvalidJson, InvalidRequest
from qwen_openai.protocol.body import MAX_VALUES, parse_object


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "line 1, column 1"),
        (b"   ", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b'{"a":1}}', "line 1, column 8"),
        (b'{"a":1,}', "line 1, column 7"),
        (b"{'a':1}", "line 1, column 2"),
        (b'{"a":\n\n tru}', "line 3, column 2"),
        (b"\xff\xfe", "byte 0"),
        (b'{"a":"\xe4\xbd"}', "byte 6"),
        ('{"a":1}'.encode("utf-16"), "UTF-8"),
        (b'\xef\xbb\xbf{"a":1}', "BOM"),
        (rb'{"a":"\ud800"}', "column 7"),
        (rb'{"\ud800":1}', "column 3"),
        (b'{"a":"\x01"}', "column 7"),
        (b"[" * MAX_VALUES, "depth"),
        (b'{"a":' * 20_000, "depth"),
        (b'{"a":' + b"1" * 5000 + b"}", "infinity"),
    ],
)
def test_broken_json_is_told_with_its_place(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        parse_object(raw)
    assert says in caught.value.message
    assert caught.value.code == "invalid_json"
    assert len(caught.value.message.encode()) < 300


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_no_number_names_its_member(literal: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        parse_object(f'{{"model": "x", "temperature" : {literal}}}'.encode())
    assert caught.value.param == "temperature"


@pytest.mark.parametrize("raw", [b"[]", b'"s"', b"42", b"null", b"true", b"1.5"])
def test_other_json_than_an_object(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="expected an object") as caught:
        parse_object(raw)
    assert not isinstance(caught.value, InvalidJson)


def test_the_last_of_two_equal_keys_holds() -> None:
    assert parse_object(b'{"model":"a","model":"b"}') == {"model": "b"}


def test_too_many_values_are_refused_before_they_are_made() -> None:
    with pytest.raises(InvalidRequest, match="more than") as caught:
        parse_object(b'{"a":[' + b"[]," * MAX_VALUES + b"[]]}", bulk="a")
    assert caught.value.param == "a"
    with pytest.raises(InvalidRequest, match="more than"):
        parse_object(b'{"a":' * 100_000)


@pytest.mark.parametrize("colon", [b":", b" :", b"\t\n:"])
def test_a_key_counts_however_its_colon_is_set(colon: bytes) -> None:
    keys = b",".join(b'"%d"%s1' % (number, colon) for number in range(MAX_VALUES + 1))
    with pytest.raises(InvalidRequest, match="more than"):
        parse_object(b"{" + keys + b"}")


def test_long_text_is_no_reason_to_refuse() -> None:
    text = "some text, with (brackets) [now] and {then}. " * 20_000
    assert parse_object(orjson.dumps({"a": text})) == {"a": text}


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_an_encodable_refusal(raw: bytes) -> None:
    try:
        assert isinstance(parse_object(raw), dict)
    except InvalidRequest as error:
        orjson.dumps(error.to_object())
