"""Values of single parameters: threat rows 7, 25 to 30 and 37."""

import pytest
from pydantic import ValidationError

from qwen_openai.protocol.chat import ACCEPTS, ChatRequest
from tests.protocol.bodies import chat_body, parsed, refused

I64 = 2**63

VALUES: list[tuple[str, tuple[object, ...], tuple[object, ...]]] = [
    ("n", (1, 8, 10**9), (0, -1, "5", True, 1.5, [1])),
    ("max_tokens", (1, 2**31, 10**12, 2**63), (0, -1, "5", True, 2.5, 2**70)),
    ("max_completion_tokens", (1, 2**31), (0, -1, "5", False)),
    ("temperature", (0, 0.5, 2), (-0.1, 2.01, "hot", True, [1], {})),
    ("top_p", (0.01, 1), (0, 1.01, -1, "x")),
    ("top_k", (-1, 0, 2**31), (-2, 2**40, 1.5, "x", True)),
    ("min_p", (0, 1), (-0.1, 1.1)),
    ("presence_penalty", (-2, 2), (-2.01, 2.01, "x")),
    ("frequency_penalty", (-2, 2), (-2.01, 2.01)),
    ("repetition_penalty", (0.01, 0.1, 2), (0, -1, 0.0099, 1e-40, 5e-324, 2.5, "x")),
    ("min_tokens", (0, 1, 2**40), (-1, "5", True, 1.5)),
    ("logprobs", (True, False), ("yes", 1, 0)),
    ("logit_bias", ({}, {"0": 1, "9999999999": -100.0}), ("x", [], 5, [[5, 1]])),
    (
        "logit_bias",
        ({str(id): 0.5 for id in range(1024)},),
        ({str(id): 0.5 for id in range(1025)}, {str(id): 1 for id in range(40_000)}),
    ),
    ("stop_token_ids", ([], [0, 2**31 - 1], [5] * 128), ([5] * 129, 5, "5", {})),
    ("include_stop_str_in_output", (True, False), ("true", 0)),
    ("ignore_eos", (True, False), ("true", 0)),
    ("enable_thinking", (True, False), ("true", 0)),
    (
        "reasoning_effort",
        ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        ("HIGH", "", 5, True, ["low"]),
    ),
    ("verbosity", ("low", "medium", "high"), ("loud", 5)),
    ("prediction", ({"type": "content", "content": "x"}, {}), ("x", 5, [])),
    ("seed", (0, -1, -I64, I64 - 1), (I64, 2**70, 1.5, True, "7")),
    ("stream", (True, False), ("true", 1, 0)),
    ("user", ("u", "x" * 512), ("x" * 513, "a\u0000", "a\u001b[2J", 5)),
    ("store", (True, False), ("yes", 1)),
    ("service_tier", ("auto", "default"), ("gold", 1)),
    (
        "metadata",
        ({"a": "b"}, {}),
        ({str(i): "" for i in range(17)}, {"a": 1}, {"k" * 65: "v"}, {"k": "v" * 513}, "x", []),
    ),
    ("continue_final_message", (False,), ("true", 1)),
    ("add_generation_prompt", (True,), ("false", 0)),
    ("safety_identifier", ("x",), ("x" * 513, 1)),
    ("prompt_cache_key", ("x",), ("x" * 513, 1)),
]


@pytest.mark.parametrize(("name", "good", "bad"), VALUES)
def test_ranges_and_types(name: str, good: tuple[object, ...], bad: tuple[object, ...]) -> None:
    for value in good:
        assert getattr(parsed(**{name: value}), name) == value
    for value in bad:
        error = refused(chat_body(**{name: value}))
        assert error.param == name
        assert f"{name} must be {ACCEPTS[name]}, got " in error.message


def test_the_message_holds_range_and_value() -> None:
    error = refused(chat_body(temperature=2.01))
    assert error.message == "temperature must be a number between 0 and 2, got 2.01."


@pytest.mark.parametrize(
    ("stop", "param"),
    [
        (["x"] * 10_000, "stop"),
        (["a", "b", "c", "d", "e"], "stop"),
        ("", "stop"),
        ([""], "stop[0]"),
        (["a", "x" * 1025], "stop[1]"),
        ([1, 2], "stop[0]"),
        ("x" * 1_000_000, "stop"),
        ({"a": 1}, "stop"),
        (7, "stop"),
    ],
)
def test_bad_stop(stop: object, param: str) -> None:
    assert refused(chat_body(stop=stop)).param == param


@pytest.mark.parametrize("stop", ["\n", "x" * 1024, [], ["\n"], ["停", "b", "c", "d"]])
def test_good_stop(stop: object) -> None:
    assert parsed(stop=stop).stop == stop


@pytest.mark.parametrize(
    ("changes", "param", "shown"),
    [
        ({"logit_bias": {"5": 101}}, "logit_bias", 'at "5", must be'),
        ({"logit_bias": {"5": -100.5}}, "logit_bias", "got -100.5"),
        ({"logit_bias": {"5": True}}, "logit_bias", "got true"),
        ({"logit_bias": {"5": "x"}}, "logit_bias", 'at "5", must be'),
        ({"logit_bias": {"5": None}}, "logit_bias", "got null"),
        ({"logit_bias": {"abc": 1}}, "logit_bias", 'at "abc", must be the digits of a token id'),
        ({"logit_bias": {"-1": 1}}, "logit_bias", 'at "-1"'),
        ({"logit_bias": {"05": 1}}, "logit_bias", 'at "05"'),
        ({"logit_bias": {"\u0665": 1}}, "logit_bias", "digits"),
        ({"logit_bias": {"5\n": 1}}, "logit_bias", "digits"),
        ({"logit_bias": {"": 1}}, "logit_bias", "digits"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "digits"),
        ({"stop_token_ids": [1, -1]}, "stop_token_ids[1]", "got -1"),
        ({"stop_token_ids": [2**40]}, "stop_token_ids[0]", "between 0 and 2147483647"),
        ({"stop_token_ids": ["abc"]}, "stop_token_ids[0]", 'got "abc"'),
        ({"stop_token_ids": [True]}, "stop_token_ids[0]", "got true"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "between 0 and 20"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs", "got -1"),
        ({"top_logprobs": "x", "logprobs": True}, "top_logprobs", 'got "x"'),
    ],
)
def test_places_inside_parameters(changes: dict[str, object], param: str, shown: str) -> None:
    error = refused(chat_body(**changes))
    assert error.param == param
    assert error.message.startswith(param)
    assert shown in error.message


@pytest.mark.parametrize("name", ["logit_bias", "metadata"])
def test_many_faults_are_not_told_one_by_one(name: str) -> None:
    body = {"messages": [], name: {str(-i): 101 for i in range(1, 2000)}}
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate(body)
    assert len([each for each in caught.value.errors() if each["loc"][0] == name]) == 1
