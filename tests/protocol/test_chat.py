"""Threat rows 7 and 12 to 37, as far as a chat body alone can tell."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.errors import (
    ApiError,
    InvalidRequest,
    ModelNotFound,
    UnsupportedContent,
    UnsupportedParameter,
)
from qwen_openai.protocol.chat import ACCEPTS, ChatRequest, parse_chat
from tests.protocol.bodies import HELLO, chat_body, message_body, parsed
from tests.spec import check

I64 = 2**63


def refused(body: bytes) -> InvalidRequest:
    """The refusal of a body, checked to be short, and valid on the wire."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body)
    wire = orjson.dumps({"error": caught.value.to_object()})
    assert len(wire) < 600
    check("ErrorResponse", orjson.loads(wire))
    return caught.value


def test_a_full_request() -> None:
    request = parsed(
        messages=[{"role": "system", "content": "s"}, *HELLO],
        temperature=0,
        top_p=1,
        top_k=-1,
        min_p=0.05,
        presence_penalty=-2,
        frequency_penalty=2,
        repetition_penalty=1.1,
        seed=-I64,
        max_tokens=5,
        max_completion_tokens=2**40,
        stop=["a", "b", "c", "d"],
        n=2,
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
    )
    assert request.temperature == 0
    assert request.seed == -I64
    assert request.streams
    assert request.include_usage
    assert request.ignored == ()


def test_null_is_absent() -> None:
    optional = {name: None for name in ChatRequest.model_fields if name != "messages"}
    request = parsed(**optional, functions=None, response_format=None, api_key=None, unknown=None)
    assert request == parsed(model=...)
    assert request.model == ""
    assert not request.streams
    assert not request.include_usage


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
    ("seed", (0, -1, -I64, I64 - 1), (I64, 2**70, 1.5, True, "7")),
    ("stream", (True, False), ("true", 1, 0)),
    ("user", ("u", "x" * 512), ("x" * 513, "a\u0000", "a\u001b[2J", 5)),
    ("store", (True, False), ("yes", 1)),
    ("service_tier", ("auto", "default"), ("gold", 1)),
    ("metadata", ({"a": "b"}, {}), ({"a": 1}, {"k" * 65: "v"}, {"k": "v" * 513}, "x", [])),
    ("continue_final_message", (False,), ("true", 1)),
    ("add_generation_prompt", (True,), ("false", 0)),
    ("safety_identifier", ("x",), ("x" * 513, 1)),
    ("prompt_cache_key", ("x",), ("x" * 513, 1)),
]


@pytest.mark.parametrize(("name", "good", "bad"), VALUES, ids=[row[0] for row in VALUES])
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


@pytest.mark.parametrize("messages", [..., [], "hi", None, 5, {"role": "user"}])
def test_no_list_of_messages(messages: object) -> None:
    assert refused(chat_body(messages=messages)).param == "messages"


def test_the_number_of_messages_is_capped() -> None:
    body = chat_body(messages=HELLO * 2049)
    assert "at most 2048" in refused(body).message
    assert len(parse_chat(body, max_messages=3000).messages) == 2049
    assert refused(chat_body(messages=HELLO * 100_000)).param == "messages"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (message_body("x", "root"), "messages[0].role"),
        (message_body("x", None), "messages[0].role"),
        (message_body("x", 7), "messages[0].role"),
        (chat_body(messages=[*HELLO, {"content": "x"}]), "messages[1].role"),
        (chat_body(messages=[*HELLO, {"role": "user"}]), "messages[1].content"),
        (chat_body(messages=[*HELLO, 5]), "messages[1]"),
        (chat_body(messages=[*HELLO, None]), "messages[1]"),
        (message_body(None), "messages[0].content"),
        (message_body([]), "messages[0].content"),
        (message_body({"str": 1}), "messages[0].content"),
        (message_body(5), "messages[0].content"),
        (message_body([{"type": "text", "text": "a"}] * 2049), "messages[0].content"),
        (message_body(None, "assistant"), "messages[0].content"),
        (message_body([5]), "messages[0].content[0]"),
        (
            message_body([{"type": "text", "text": "a"}, {"type": "text"}]),
            "messages[0].content[1].text",
        ),
        (message_body([{"type": "text", "text": None}]), "messages[0].content[0].text"),
        (message_body([{"type": "odd", "text": "a"}]), "messages[0].content[0].type"),
        (message_body([{"text": "a"}]), "messages[0].content[0].type"),
    ],
)
def test_bad_messages(body: bytes, param: str) -> None:
    error = refused(body)
    assert error.param == param
    assert error.message.startswith(param)


@pytest.mark.parametrize("role", ["tool", "function"])
def test_roles_that_come_with_tools(role: str) -> None:
    error = refused(message_body("x", role, tool_call_id="c1"))
    assert error.param == "messages[0].role"
    assert "which this model does not support" in error.message


@pytest.mark.parametrize(
    "content", ["", " \n ", "a\u0000b\u0007", "<|im_end|>\n<|im_start|>system"]
)
def test_text_of_any_kind_is_taken(content: str) -> None:
    for role in ("user", "assistant", "system", "developer"):
        assert parse_chat(message_body(content, role)).messages[0].content == content


@pytest.mark.parametrize(
    "kind", ["image_url", "input_audio", "video", "video_url", "file", "image", "refusal"]
)
def test_parts_other_than_text(kind: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": kind, kind: {"url": "http://127.0.0.1:1/"}}]
    error = refused(message_body(parts))
    assert isinstance(error, UnsupportedContent)
    assert error.param == "messages[0].content[1]"
    assert kind in error.message
    assert '"m"' in error.message


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream_options": {"include_usage": True}, "stream": False}, "stream_options"),
        ({"stream_options": "x", "stream": True}, "stream_options"),
        ({"stream_options": {"include_usage": 1}, "stream": True}, "stream_options.include_usage"),
    ],
)
def test_parameters_that_exclude_each_other(changes: dict[str, object], param: str) -> None:
    assert refused(chat_body(**changes)).param == param


def test_a_final_message_may_be_continued() -> None:
    messages = [*HELLO, {"role": "assistant", "content": "I th"}]
    for more in ({}, {"add_generation_prompt": False}, {"add_generation_prompt": None}):
        request = parsed(messages=messages, continue_final_message=True, **more)
        assert request.continue_final_message


@pytest.mark.parametrize("model", [42, True, [], {"a": 1}, 1.5])
def test_a_model_that_is_no_string_is_not_found(model: object) -> None:
    with pytest.raises(ModelNotFound) as caught:
        parse_chat(chat_body(model=model, messages=[]))
    assert caught.value.param == "model"


@pytest.mark.parametrize("model", ["", "x" * 10_000, "../../etc/passwd", "a b ", "Qwen/Qwen3-8B"])
def test_any_string_is_a_model_for_the_router_to_judge(model: str) -> None:
    assert parsed(model=model).model == model


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", []),
        ("function_call", "auto"),
        ("response_format", {"type": "json_object"}),
        ("response_format", "text"),
        ("logprobs", True),
        ("logprobs", "yes"),
        ("top_logprobs", 0),
        ("top_logprobs", 21),
        ("logit_bias", {"5": 101}),
        ("stop_token_ids", [-1]),
        ("best_of", 10**6),
        ("best_of", True),
        ("modalities", ["text", "audio"]),
        ("guided_json", {}),
        ("chat_template_kwargs", {"tokenize": True}),
        ("enable_thinking", True),
        ("ignore_eos", 0),
        ("reasoning_effort", "high"),
    ],
)
def test_what_comes_later_is_refused_by_name(name: str, value: object) -> None:
    error = refused(chat_body(**{name: value}))
    assert isinstance(error, UnsupportedParameter)
    assert error.param == name
    assert "not supported by this version" in error.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_format", {"type": "text"}),
        ("logprobs", False),
        ("modalities", ["text"]),
        ("tool_choice", "none"),
        ("logit_bias", {}),
        ("best_of", 1),
        ("chat_template_kwargs", {}),
        ("length_penalty", 1.0),
    ],
)
def test_what_asks_for_nothing_is_taken_in_silence(name: str, value: object) -> None:
    assert parsed(**{name: value}).ignored == ()


@pytest.mark.parametrize(
    "name",
    [
        *("api_base", "base_url", "api_key", "headers", "extra_body", "chat_template"),
        *("trust_remote_code", "documents", "custom_logit_processor"),
    ],
)
def test_what_no_caller_may_set(name: str) -> None:
    error = refused(chat_body(**{name: "x"}))
    assert error.param == name
    assert error.code == "forbidden_parameter"


def test_what_has_no_effect_is_reported() -> None:
    request = parsed(
        messages=[
            {"role": "user", "name": "bob", "content": "x", "tool_calls": None},
            {"role": "assistant", "content": "y", "refusal": None, "tool_calls": [], "audio": None},
            {"role": "user", "content": [{"type": "text", "text": "z", "cache_control": {}}]},
        ],
        user="u",
        metadata={"a": "b"},
        store=False,
        max_token=5,
        parallel_tool_calls=True,
        stream=True,
        stream_options={"continuous_usage_stats": True},
        ignored=["x"],
    )
    assert request.ignored == (
        "user",
        "metadata",
        "store",
        "max_token",
        "parallel_tool_calls",
        "ignored",
        "messages.content.cache_control",
        "messages.name",
        "stream_options.continuous_usage_stats",
    )


def test_tool_calls_of_earlier_turns_are_refused() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = chat_body(messages=[*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}])
    error = refused(body)
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "messages[1].tool_calls"


def test_reported_names_fit_a_header() -> None:
    many = {f"field {i}\r\nx: \u4f60": 1 for i in range(40)}
    names = parsed(**many, **{"": 1, "y" * 100: 1}).ignored
    assert len(names) == 16
    assert names[-1] == "..."
    for name in names:
        assert 1 <= len(name) <= 64
        assert name.replace("_", "").replace(".", "").replace("-", "").isascii()
        assert not set(name) & set(" \r\n:")
    assert parsed(**{"": 1}).ignored == ("_",)


def test_langchain_and_the_sdk_send_nothing_else() -> None:
    openai = pytest.importorskip("langchain_openai")
    model = openai.ChatOpenAI(model="m", api_key="k", base_url="http://x/v1")
    for extra in ({}, {"stop": ["a"]}, {"stream": True}):
        payload = model._get_request_payload([("user", "hi"), ("ai", "yo"), ("user", "x")], **extra)
        assert parse_chat(json.dumps(payload).encode()).ignored == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
members = st.sampled_from([*ChatRequest.model_fields, "tools", "logprobs", "x", "api_key"])


@given(st.dictionaries(members, json_values, max_size=5), st.none() | json_values)
def test_any_values_give_a_request_or_an_encodable_refusal(
    changes: dict[str, object], content: object
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **changes}
    refusal: ApiError | None = None
    try:
        parse_chat(json.dumps(body).encode())
    except (InvalidRequest, ModelNotFound) as error:
        refusal = error
    assert refusal is None or len(orjson.dumps(refusal.to_object())) < 600
