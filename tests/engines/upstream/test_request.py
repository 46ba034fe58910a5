"""What goes to a server, by what it is."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from qwen_openai.adapter.chat import chat_job
from qwen_openai.adapter.limits import Limits
from qwen_openai.core import Job, Message, RawPrompt, Sampling, ToolCall
from qwen_openai.engines.upstream.kinds import ROWS, refuses
from qwen_openai.engines.upstream.request import request_of
from qwen_openai.errors import UnsupportedParameter
from qwen_openai.families import family_of
from qwen_openai.protocol.chat import parse_chat
from qwen_openai.upstreams import Kind

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("f", "g")
]
ALL: tuple[Kind, ...] = ("vllm", "sglang", "llamacpp", "openai")


def job_of(kind: Kind = "vllm", **body: object) -> Job:
    """The job of a chat body, as the endpoint makes it."""
    raw = {"model": "ours", "messages": [{"role": "user", "content": "hi"}], **body}
    request = parse_chat(orjson.dumps(raw))
    family = replace(family_of("Qwen3-8B"), tools="hermes", thinking="switched")
    job = chat_job(request, id="j", family=family, limits=Limits(), refuses=refuses(kind))
    return replace(job, asked=request.as_asked())


def sent(kind: Kind = "vllm", **body: object) -> Any:  # noqa: ANN401  # JSON
    return orjson.loads(request_of(job_of(kind, **body), "theirs", ROWS[kind]).body)


@pytest.mark.parametrize("kind", ALL)
def test_what_all_servers_take_is_sent_as_it_came(kind: Kind) -> None:
    asked = {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 9,
        "stop": ["a", "b"],
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "logit_bias": {"5": -100},
        "logprobs": True,
        "top_logprobs": 2,
        "tools": TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    }
    body = sent(kind, n=3, seed=7, **asked)
    assert {name: body[name] for name in asked if name != "tools"} == {
        name: value for name, value in asked.items() if name != "tools"
    }
    assert [each["function"]["name"] for each in body["tools"]] == ["f", "g"]
    assert body["model"] == "theirs"
    assert body["seed"] == 7
    assert "n" not in body
    assert "stream" not in body


def test_each_choice_has_a_seed_of_its_own() -> None:
    job = replace(job_of(seed=7, n=3), choice=2)
    assert orjson.loads(request_of(job, "theirs", ROWS["vllm"]).body)["seed"] == 9


@pytest.mark.parametrize("kind", ALL)
def test_a_stream_tells_its_usage(kind: Kind) -> None:
    options = sent(kind, stream=True)["stream_options"]
    assert options["include_usage"]
    assert ("continuous_usage_stats" in options) == (kind == "vllm")


@pytest.mark.parametrize("kind", ALL)
def test_a_parameter_is_sent_renamed_or_refused(kind: Kind) -> None:
    given: dict[str, object] = {
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "stop_token_ids": [3],
        "min_tokens": 2,
        "include_stop_str_in_output": True,
        "ignore_eos": True,
    }
    for name, value in given.items():
        if name in refuses(kind):
            with pytest.raises(UnsupportedParameter, match=name):
                job_of(kind, **{name: value})
        else:
            assert sent(kind, **{name: value})[ROWS[kind].names.get(name, name)] == value


def test_what_is_only_openais_goes_nowhere_else() -> None:
    for kind in ALL:
        assert ("user" in sent(kind, user="u", metadata={"a": "b"})) == (kind == "openai")


def test_thoughts_are_switched_by_the_template() -> None:
    for kind in ("vllm", "sglang", "llamacpp"):
        body = sent(kind, reasoning_effort="none")
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        assert "reasoning_effort" not in body
    assert sent("openai", reasoning_effort="low")["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    ("kind", "outputs", "sent_as"),
    [
        ("vllm", {"regex": "a+"}, {"structured_outputs": {"regex": "a+"}}),
        ("vllm", {"grammar": 'root ::= "a"'}, {"structured_outputs": {"grammar": 'root ::= "a"'}}),
        ("sglang", {"regex": "a+"}, {"regex": "a+"}),
        ("sglang", {"choice": ["a.", "b"]}, {"regex": r"(a\.|b)"}),
        ("sglang", {"grammar": 'root ::= "a"'}, {"ebnf": 'root ::= "a"'}),
        ("llamacpp", {"grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        ("llamacpp", {"choice": ["a", 'b"']}, {"grammar": r'root ::= "a" | "b\""'}),
        ("openai", {"json_object": True}, {"response_format": {"type": "json_object"}}),
        ("sglang", {"json": {"type": "object"}}, None),
        ("openai", {"json": '{"type": "object"}'}, None),
        ("llamacpp", {"regex": "a+"}, "structured_outputs.regex"),
        ("openai", {"choice": ["a"]}, "structured_outputs.choice"),
        ("sglang", {"grammar": 'start: "a"'}, "structured_outputs.grammar"),
    ],
)
def test_formats(kind: Kind, outputs: dict[str, object], sent_as: object) -> None:
    if isinstance(sent_as, str):
        with pytest.raises(UnsupportedParameter) as caught:
            sent(kind, structured_outputs=outputs)
        assert caught.value.param == sent_as
        return
    body = sent(kind, structured_outputs=outputs)
    if isinstance(sent_as, dict):
        assert {name: body[name] for name in sent_as} == sent_as
    else:
        assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert ("structured_outputs" in body) == (kind == "vllm")


def test_the_older_form_of_tools() -> None:
    functions = [each["function"] for each in TOOLS]
    body = sent(functions=functions, function_call={"name": "g"})
    assert [each["function"]["name"] for each in body["tools"]] == ["f", "g"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "g"}}
    assert not {"functions", "function_call"} & body.keys()
    assert "tools" not in sent(functions=functions, function_call="none")


def test_allowed_tools_are_the_only_ones() -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}
    body = sent(tools=TOOLS, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [each["function"]["name"] for each in body["tools"]] == ["g"]
    assert body["tool_choice"] == "required"


def test_a_named_tool_is_the_only_one_where_names_are_not_taken() -> None:
    choice = {"type": "function", "function": {"name": "g"}}
    body = sent("llamacpp", tools=TOOLS, tool_choice=choice)
    assert [each["function"]["name"] for each in body["tools"]] == ["g"]
    assert body["tool_choice"] == "required"
    assert sent("vllm", tools=TOOLS, tool_choice=choice)["tool_choice"] == choice


def test_a_conversation() -> None:
    call = ToolCall("c", "f", "{}")
    messages = (
        Message("system", "s"),
        Message("assistant", "", (call,), reasoning="hm"),
        Message("tool", "r", tool_call_id="c"),
    )
    body = orjson.loads(request_of(Job("j", "m", messages), "theirs", ROWS["sglang"]).body)
    assert body["messages"] == [
        {"role": "system", "content": "s"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
            "reasoning_content": "hm",
        },
        {"role": "tool", "content": "r", "tool_call_id": "c"},
    ]


def test_going_on_with_a_message() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    body = sent(messages=messages, continue_final_message=True)
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


@pytest.mark.parametrize("prompt", ["text", (1, 2)])
def test_a_raw_prompt(prompt: str | tuple[int, ...]) -> None:
    asked = {"model": "ours", "best_of": 3, "echo": True, "logprobs": 2, "temperature": 0.1}
    job = Job(
        "j", "ours", (), Sampling(max_tokens=16, logprobs=2), prompt=RawPrompt(prompt), asked=asked
    )
    request = request_of(job, "theirs", ROWS["vllm"])
    body = orjson.loads(request.body)
    assert request.path == "/completions"
    assert body["prompt"] == (prompt if isinstance(prompt, str) else list(prompt))
    assert (body["max_tokens"], body["logprobs"], body["temperature"]) == (16, 2, 0.1)
    assert not {"best_of", "echo", "messages"} & body.keys()


def test_a_job_that_no_body_asked_for() -> None:
    sampling = Sampling(
        temperature=0.5,
        top_k=3,
        stop=("x",),
        max_tokens=5,
        include_stop=True,
        stop_token_ids=(4,),
        logit_bias=((7, 1.5),),
        logprobs=1,
    )
    job = Job("j", "m", (Message("user", "a"),), sampling, watched=False)
    body = orjson.loads(request_of(job, "theirs", ROWS["vllm"]).body)
    assert body == {
        "model": "theirs",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.5,
        "top_k": 3,
        "max_tokens": 5,
        "stop": ["x"],
        "include_stop_str_in_output": True,
        "stop_token_ids": [4],
        "logit_bias": {"7": 1.5},
        "logprobs": True,
        "top_logprobs": 1,
    }
    assert "top_k" not in orjson.loads(request_of(job, "theirs", ROWS["openai"]).body)


def test_best_of_asks_for_what_it_is_chosen_by() -> None:
    made = Job(
        "id", "ours", (), prompt=RawPrompt("a"), sampling=Sampling(logprobs=0), asked={"best_of": 2}
    )
    body = orjson.loads(request_of(made, "theirs", ROWS["vllm"]).body)
    assert body["logprobs"] == 0
    assert "best_of" not in body
