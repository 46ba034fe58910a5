"""How much to think, on the wire: threat row 23."""

import pytest

from qwen_openai.errors import UnsupportedParameter
from tests.protocol.bodies import chat_body, parsed, refused


def test_the_options_that_a_caller_may_set() -> None:
    options = {"enable_thinking": True, "preserve_thinking": False, "reasoning_effort": "high"}
    request = parsed(chat_template_kwargs=options)
    assert request.chat_template_kwargs is not None
    assert request.chat_template_kwargs.model_dump() == options
    assert request.ignored == ()


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tokenize": True}, "chat_template_kwargs.tokenize"),
        ({"tokenize": False}, "chat_template_kwargs.tokenize"),
        ({"messages": []}, "chat_template_kwargs.messages"),
        ({"range": {}}, "chat_template_kwargs.range"),
        ({"chat_template": "{{ x }}"}, "chat_template_kwargs.chat_template"),
        ({"enable_thinking": True, "x\r\ny": 1}, "chat_template_kwargs.x__y"),
        ({"": 1}, "chat_template_kwargs._"),
    ],
)
def test_other_options(options: dict[str, object], param: str) -> None:
    error = refused(chat_body(chat_template_kwargs=options))
    assert isinstance(error, UnsupportedParameter)
    assert error.param == param


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ("x", "chat_template_kwargs"),
        ([], "chat_template_kwargs"),
        ({"enable_thinking": "true"}, "chat_template_kwargs.enable_thinking"),
        ({"enable_thinking": {}}, "chat_template_kwargs.enable_thinking"),
        ({"preserve_thinking": 1}, "chat_template_kwargs.preserve_thinking"),
        ({"reasoning_effort": "most"}, "chat_template_kwargs.reasoning_effort"),
        ({"reasoning_effort": 5}, "chat_template_kwargs.reasoning_effort"),
    ],
)
def test_bad_options(options: object, param: str) -> None:
    assert refused(chat_body(chat_template_kwargs=options)).param == param


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        (
            {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
            "chat_template_kwargs.enable_thinking",
        ),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}},
            "chat_template_kwargs.reasoning_effort",
        ),
        ({"enable_thinking": True, "reasoning_effort": "none"}, "reasoning_effort"),
        ({"enable_thinking": False, "reasoning_effort": "low"}, "reasoning_effort"),
        (
            {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"},
            "reasoning_effort",
        ),
    ],
)
def test_contradictions(changes: dict[str, object], param: str) -> None:
    error = refused(chat_body(**changes))
    assert error.param == param
    assert "contradict" in error.message


@pytest.mark.parametrize(
    "changes",
    [
        {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": True}},
        {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": None}},
        {"enable_thinking": True, "reasoning_effort": "high"},
        {"enable_thinking": True, "reasoning_effort": "minimal"},
        {"enable_thinking": False, "reasoning_effort": "minimal"},
        {"enable_thinking": False, "reasoning_effort": "none"},
        {"reasoning_effort": "high", "chat_template_kwargs": {"reasoning_effort": "high"}},
    ],
)
def test_what_agrees(changes: dict[str, object]) -> None:
    assert parsed(**changes).ignored == ()
