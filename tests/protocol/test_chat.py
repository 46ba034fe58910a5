"""Threat rows 7 and 12 to 37, as far as a chat body alone can tell."""

import json

import pytest

from qwen_openai.errors import (
    ModelNotFound,
    UnsupportedContent,
    UnsupportedParameter,
)
from qwen_openai.protocol.chat import ChatRequest, parse_chat
from tests.protocol.bodies import HELLO, chat_body, message_body, parsed, refused

I64 = 2**63
BOB = {"role": "user", "content": "hi"}


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
        logprobs=True,
        top_logprobs=20,
        logit_bias={"0": -100, "151643": 0.5},
        min_tokens=3,
        stop_token_ids=[0, 151643],
        include_stop_str_in_output=True,
        ignore_eos=True,
        reasoning_effort="high",
        enable_thinking=True,
        chat_template_kwargs={"preserve_thinking": False},
    )
    assert request.answer_limit == 2**40
    assert request.enforced_by is None
    assert request.temperature == 0
    assert request.seed == -I64
    assert request.streams
    assert request.include_usage
    assert request.ignored == ()


def test_null_is_absent() -> None:
    optional = {name: None for name in ChatRequest.model_fields if name != "messages"}
    request = parsed(**optional, best_of=None, api_key=None, unknown=None)
    assert request == parsed(model=...)
    assert request.model == ""
    assert not request.streams
    assert not request.include_usage


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt_cache_retention", "1h"),
        ("prompt_cache_retention", 24),
        ("prompt_cache_options", "30m"),
        ("service_tier", "slow"),
    ],
)
def test_what_has_no_effect_has_its_type(name: str, value: object) -> None:
    assert refused(chat_body(**{name: value})).param == name


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
        (
            {
                "continue_final_message": True,
                "messages": [
                    {
                        "role": "assistant",
                        "content": "x",
                        "function_call": {"name": "f", "arguments": "{}"},
                    }
                ],
            },
            "continue_final_message",
        ),
        (
            {
                "continue_final_message": True,
                "messages": [{"role": "assistant", "content": None, "reasoning": "cut"}],
            },
            "continue_final_message",
        ),
        ({"top_logprobs": 0}, "top_logprobs"),
        ({"top_logprobs": 5, "logprobs": False}, "top_logprobs"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"min_tokens": 6, "max_tokens": 9, "max_completion_tokens": 5}, "min_tokens"),
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
        ("best_of", 10**6),
        ("best_of", True),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("web_search_options", {}),
        ("include_reasoning", False),
        ("use_beam_search", True),
        ("prompt_logprobs", 1),
        ("thinking_budget", 100),
        ("n_predict", 5),
    ],
)
def test_what_nothing_here_does_is_refused_by_name(name: str, value: object) -> None:
    error = refused(chat_body(**{name: value}))
    assert isinstance(error, UnsupportedParameter)
    assert error.param == name
    assert f"The parameter {name!r} is not supported; " in error.message


@pytest.mark.parametrize("kind", ["json", "regex", "choice", "grammar"])
def test_older_names_of_structured_outputs_name_the_new_ones(kind: str) -> None:
    error = refused(chat_body(**{f"guided_{kind}": "x"}))
    assert error.param == f"guided_{kind}"
    assert f"send structured_outputs.{kind} instead" in error.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_format", {"type": "text"}),
        ("logprobs", False),
        ("function_call", "none"),
        ("modalities", ["text"]),
        ("verbosity", "medium"),
        ("store", False),
        ("service_tier", "auto"),
        ("include_reasoning", True),
        ("tool_choice", "none"),
        ("logit_bias", {}),
        ("best_of", 1),
        ("chat_template_kwargs", {}),
        ("chat_template_kwargs", {"tokenize": None}),
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
        store=True,
        verbosity="high",
        prediction={"type": "content", "content": "x"},
        prompt_cache_retention="in-memory",
        prompt_cache_options={"ttl": "30m"},
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
        "verbosity",
        "prediction",
        "prompt_cache_retention",
        "prompt_cache_options",
        "max_token",
        "ignored",
        "messages.content.cache_control",
        "messages.name",
        "stream_options.continuous_usage_stats",
        "parallel_tool_calls",
    )


@pytest.mark.parametrize(
    ("changes", "param", "guess"),
    [
        ({"user": "u"}, "user", ""),
        ({"verbosity": "low"}, "verbosity", ""),
        ({"max_token": 5}, "max_token", " Did you mean 'max_tokens'?"),
        ({"zzz": 5}, "zzz", ""),
        ({"parallel_tool_calls": True}, "parallel_tool_calls", ""),
        ({"messages": [{**BOB, "name": "bob"}]}, "messages.name", ""),
        ({"a b\r\nc": 1}, "a_b__c", ""),
    ],
)
def test_strictly_nothing_is_ignored(changes: dict[str, object], param: str, guess: str) -> None:
    body = chat_body(**changes)
    assert parse_chat(body).ignored == (param,)
    with pytest.raises(UnsupportedParameter) as caught:
        parse_chat(body, strict=True)
    assert caught.value.param == param
    assert caught.value.message.endswith(f"leave it out.{guess}")


def test_what_is_honoured_is_taken_strictly() -> None:
    body = chat_body(temperature=1, verbosity="medium", store=False, tool_choice="none")
    assert parse_chat(body, strict=True).temperature == 1


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
