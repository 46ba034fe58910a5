"""No body gives anything but a valid request, or a refusal that names what it refuses."""

import json

import orjson
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.errors import ApiError, InvalidRequest, ModelNotFound
from qwen_openai.protocol.chat import parse_chat
from qwen_openai.protocol.parameters import PARAMETERS

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
members = st.sampled_from([*PARAMETERS, "ignored", "x"])


@given(st.dictionaries(members, json_values, max_size=5), st.none() | json_values)
def test_any_values_give_a_request_or_an_encodable_refusal(
    changes: dict[str, object], content: object
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **changes}
    judge(body)


def judge(body: object) -> None:
    """Fail unless a body gives a request, or a refusal that is short, and names a place if the body
    is JSON at all."""
    raw = json.dumps(body).encode()
    for strict in (False, True):
        refusal: ApiError | None = None
        try:
            assert parse_chat(raw, strict=strict).messages
        except (InvalidRequest, ModelNotFound) as error:
            refusal = error
        if refusal is not None:
            assert len(orjson.dumps(refusal.to_object())) < 600
            assert refusal.param or refusal.code == "invalid_json"


texts = st.sampled_from(["f", "g", "auto", "none", "required", "a b", "", "function", "\u0000"])
small = st.none() | st.booleans() | st.integers(-2, 200) | texts
schemas: st.SearchStrategy[object] = st.recursive(
    small | st.just({}),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "properties", "$ref", "enum"]), inner)
    ),
    max_leaves=6,
)
functions = st.fixed_dictionaries(
    {"name": texts}, optional={"parameters": schemas, "strict": small}
)
named = st.fixed_dictionaries({"type": texts, "function": st.fixed_dictionaries({"name": texts})})
tools = st.lists(
    st.fixed_dictionaries({"type": texts, "function": functions}), min_size=1, max_size=3
)
allowed = st.fixed_dictionaries(
    {
        "type": st.just("allowed_tools"),
        "allowed_tools": st.fixed_dictionaries({"mode": texts, "tools": st.lists(named)}),
    }
)
formats = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "json_object", "json_schema", "x"])},
    optional={
        "json_schema": st.fixed_dictionaries(
            {"name": texts}, optional={"schema": schemas, "strict": small, "description": small}
        )
    },
)
outputs = st.dictionaries(
    st.sampled_from(["json", "regex", "choice", "grammar", "json_object", "structural_tag"]),
    small | st.lists(texts) | schemas | st.just("{}"),
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "tools": tools,
        "functions": st.lists(functions, min_size=1, max_size=2),
        "tool_choice": texts | named | allowed,
        "function_call": texts | st.fixed_dictionaries({"name": texts}),
        "response_format": formats,
        "structured_outputs": outputs,
        "logprobs": st.booleans(),
        "top_logprobs": small,
        "logit_bias": st.dictionaries(st.sampled_from(["1", "x", "-1", "007"]), small),
        "stop_token_ids": st.lists(small),
        "min_tokens": small,
        "max_tokens": small,
        "ignore_eos": small,
        "continue_final_message": small,
        "enable_thinking": small,
        "reasoning_effort": st.sampled_from(["none", "high", "x"]),
        "chat_template_kwargs": st.dictionaries(
            st.sampled_from(["enable_thinking", "reasoning_effort", "tokenize", "messages"]), small
        ),
    },
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "function", "system", "x"])},
    optional={
        "content": small,
        "name": small,
        "reasoning": small,
        "reasoning_content": small,
        "function_call": st.none() | st.fixed_dictionaries({"name": texts, "arguments": small}),
        "tool_call_id": small,
    },
)


@given(likely, st.lists(message, min_size=1, max_size=3))
def test_likely_values_give_a_request_or_a_refusal_with_a_place(
    changes: dict[str, object], messages: list[object]
) -> None:
    judge({"messages": [{"role": "user", "content": "hi"}], **changes})
    judge({"messages": messages, **changes})


@given(json_values, json_values, json_values)
def test_any_tools_and_calls(tools: object, calls: object, choice: object) -> None:
    messages = [{"role": "assistant", "content": "", "tool_calls": calls}]
    judge({"messages": messages, "tools": tools, "tool_choice": choice})
