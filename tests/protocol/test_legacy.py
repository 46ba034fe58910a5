"""The tutorial's body: its defaults, and its refusals."""

import json

import pytest

from qwen_openai.errors import InvalidJson, InvalidRequest
from qwen_openai.protocol.legacy import LegacyRequest, parse_legacy


def post(**body: object) -> LegacyRequest:
    return parse_legacy(json.dumps(body).encode())


def test_the_tutorials_own_call() -> None:
    request = parse_legacy('{"prompt": "你好", "history": []}'.encode())
    assert request == LegacyRequest(prompt="你好")
    assert request.history == []


@pytest.mark.parametrize("nothing", [{}, {"n": None}, {"n": 0}, {"n": 0.0}])
def test_null_zero_and_absent_mean_the_default(nothing: dict[str, object]) -> None:
    names = ("max_length", "top_p", "temperature")
    request = post(
        prompt="x", history=None, **{name: value for name in names for value in nothing.values()}
    )
    assert request == LegacyRequest(prompt="x")


def test_everything_given() -> None:
    request = post(
        prompt="x",
        history=[["a", "b"], ["c", ""]],
        max_length=2048,
        top_p=0.5,
        temperature=1.5,
        seed=3,
        stream=None,
    )
    assert request.history == [("a", "b"), ("c", "")]
    assert (request.max_length, request.top_p, request.temperature) == (2048, 0.5, 1.5)
    assert request.ignored == ("seed",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": 42}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x", "history": "x"}, "history"),
        ({"prompt": "x", "history": {}}, "history"),
        ({"prompt": "x", "history": [["a", "b"], ["a", "b", "c"]]}, "history[1]"),
        ({"prompt": "x", "history": [["a"]]}, "history[0]"),
        ({"prompt": "x", "history": [[]]}, "history[0]"),
        ({"prompt": "x", "history": ["ab"]}, "history[0]"),
        ({"prompt": "x", "history": [{"a": 1, "b": 2}]}, "history[0]"),
        ({"prompt": "x", "history": [["a", None]]}, "history[0][1]"),
        ({"prompt": "x", "temperature": 9}, "temperature"),
        ({"prompt": "x", "temperature": False}, "temperature"),
        ({"prompt": "x", "top_p": 1.5}, "top_p"),
        ({"prompt": "x", "top_p": "0.7"}, "top_p"),
        ({"prompt": "x", "max_length": -4}, "max_length"),
        ({"prompt": "x", "max_length": 1.5}, "max_length"),
        ({"prompt": "x", "api_base": "http://x"}, "api_base"),
        ({"prompt": "x", "history": [["a", "b"]] * 1025}, "history"),
    ],
)
def test_refusals(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        post(**body)
    assert caught.value.param == param


def test_ignored_is_no_member_of_the_wire() -> None:
    assert "ignored" not in LegacyRequest.model_json_schema()["properties"]


def test_broken_json() -> None:
    with pytest.raises(InvalidJson):
        parse_legacy(b"{")
