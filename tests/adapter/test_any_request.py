"""No body of responses or chat completions gives anything but a job, or a refusal by name."""

import json
import re
from collections.abc import Callable
from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.adapter.chat import chat_job
from qwen_openai.adapter.limits import Limits
from qwen_openai.adapter.responses_api import responses_job
from qwen_openai.core import Job
from qwen_openai.errors import ApiError, InvalidRequest
from qwen_openai.families import DEFAULT_FAMILY, FAMILIES, Family
from qwen_openai.protocol.chat import parse_chat
from qwen_openai.protocol.responses_api import RESPONSES_PARAMETERS, parse_responses

families = st.sampled_from((*FAMILIES, DEFAULT_FAMILY, replace(FAMILIES[2], thinking="always")))
texts = st.sampled_from(["f", "g", "auto", "none", "required", "a b", "", "c1", "c2", "{}", "\0"])
small = st.none() | st.booleans() | st.integers(-2, 30) | texts
loose = st.recursive(
    small,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
ids = st.sampled_from(["c1", "c2"])
schemas = st.sampled_from([None, {}, {"type": "object"}, {"type": "x"}, {"$ref": "x:y"}])


def some(**members: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Objects with all these members, now and then without one, or with a value of any kind."""
    whole = st.fixed_dictionaries(members)
    odd = st.fixed_dictionaries({}, optional={name: loose for name in members})
    return whole | st.builds(lambda one, other: {**one, **other}, whole, odd)


def just(value: str) -> st.SearchStrategy[object]:
    return st.just(value)


parts = st.lists(
    some(type=st.sampled_from(["input_text", "output_text", "input_image"]), text=texts),
    max_size=2,
)
thoughts = st.lists(some(type=just("reasoning_text"), text=texts), max_size=2)
items = st.one_of(
    some(role=st.sampled_from(["user", "assistant", "system", "developer"]), content=texts | parts),
    some(type=just("message"), role=just("assistant"), content=parts),
    some(type=just("function_call"), call_id=ids, name=just("f"), arguments=texts),
    some(type=just("function_call_output"), call_id=ids, output=texts | parts),
    some(type=just("reasoning"), summary=st.just([]), content=thoughts),
    some(type=just("item_reference"), id=texts),
)
tools = st.lists(
    some(type=just("function"), name=texts, parameters=schemas, strict=st.booleans()), max_size=2
)
named = some(type=just("function"), name=texts)
choices = st.one_of(
    texts,
    named,
    some(
        type=just("allowed_tools"),
        mode=st.sampled_from(["auto", "required"]),
        tools=st.lists(named, max_size=2),
    ),
)
formats = some(
    type=st.sampled_from(["text", "json_object", "json_schema"]), name=texts, schema=schemas
)
efforts = st.sampled_from(["none", "minimal", "low", "high"])
bodies = st.fixed_dictionaries(
    {"input": texts | st.lists(items, max_size=6)},
    optional={
        "instructions": texts,
        "tools": tools,
        "tool_choice": choices,
        "text": some(format=formats),
        "reasoning": some(effort=efforts),
        "top_logprobs": small,
        "parallel_tool_calls": st.booleans(),
        "truncation": st.sampled_from(["auto", "disabled"]),
    },
)
odd_members = st.dictionaries(
    st.sampled_from([*RESPONSES_PARAMETERS, "ignored", "x"]), loose, max_size=1
)


def judged(make: Callable[[], Job]) -> tuple[Job | None, ApiError | None]:
    """A job, or a refusal that is short and names a place."""
    try:
        return make(), None
    except InvalidRequest as error:
        refusal = error
    assert refusal.param
    assert len(orjson.dumps(refusal.to_object())) < 700
    return None, refusal


@given(bodies, odd_members, families)
def test_responses(body: dict[str, object], odd: dict[str, object], family: Family) -> None:
    raw = json.dumps({**body, **odd, "model": "m"}).encode()
    limits = Limits()
    job, refusal = judged(
        lambda: responses_job(parse_responses(raw), id="x", family=family, limits=limits)
    )
    if job is not None:
        assert job.messages
        assert not (job.grammar is not None and job.grammar.param == "response_format")
        assert all("messages" not in name for name in job.ignored)
    if refusal is not None:
        # It is a place of this body, not one of the chat request that it became.
        assert re.split(r"[.\[]", refusal.param or "")[0] in {**body, **odd}


legacy_calls = some(name=just("f"), arguments=texts)
messages = st.lists(
    st.one_of(
        some(role=st.sampled_from(["user", "system", "assistant"]), content=texts),
        some(role=just("assistant"), function_call=legacy_calls),
        some(role=just("function"), name=just("f"), content=texts),
    ),
    min_size=1,
    max_size=6,
)
thinking = st.fixed_dictionaries(
    {},
    optional={
        "enable_thinking": st.booleans(),
        "reasoning_effort": efforts,
        "chat_template_kwargs": some(enable_thinking=st.booleans(), preserve_thinking=small),
        "functions": st.just([{"name": "f"}]),
        "function_call": st.sampled_from(["none", "auto", {"name": "f"}]),
        "continue_final_message": st.booleans(),
    },
)


@given(messages, thinking, families)
def test_chat(messages: list[object], more: dict[str, object], family: Family) -> None:
    raw = json.dumps({"model": "m", "messages": messages, **more}).encode()
    limits = Limits()
    job, _ = judged(lambda: chat_job(parse_chat(raw), id="x", family=family, limits=limits))
    if job is not None:
        assert job.thinks <= (family.thinking != "never")
        assert not (job.thinks and job.enable_thinking is False)
