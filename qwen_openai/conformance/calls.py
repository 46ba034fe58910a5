"""Facts of tool calls, plain and streamed."""

import json

from qwen_openai.conformance.fact import Fact, Failed, expect
from qwen_openai.conformance.http import Json
from qwen_openai.conformance.target import (
    ASKING,
    WEATHER,
    Target,
    applicable,
    choices_of,
    first_choice,
    member,
    message,
    objects,
)


def _calls(body: Json) -> list[Json]:
    return objects(message(body).get("tool_calls"), "message.tool_calls")


def _arguments(text: object) -> Json:
    try:
        value = json.loads(str(text))
    except ValueError:
        raise Failed(f"the arguments are no JSON: {text!r}") from None
    if not isinstance(value, dict):
        raise Failed(f"the arguments are no object: {text!r}")
    return value


def _check(call: Json) -> None:
    expect(call.get("type") == "function", f"type is {call.get('type')!r}")
    expect(isinstance(call.get("id"), str) and call["id"], "the call has no id")
    function = member(call, "function")
    expect(function.get("name") == "get_weather", f"the name is {function.get('name')!r}")
    given = _arguments(function.get("arguments"))
    expect(isinstance(given.get("city"), str), f"the arguments break the schema: {given}")


def _named(target: Target) -> None:
    calls = _calls(target.call)
    expect(calls, "no call was made")
    _check(calls[0])
    reason = first_choice(target.call).get("finish_reason")
    expect(reason in ("stop", "tool_calls"), f"finish_reason is {reason!r}")


def _required(target: Target) -> None:
    body = target.answer(messages=ASKING, tools=[WEATHER], tool_choice="required", max_tokens=200)
    applicable(first_choice(body).get("finish_reason") != "length", "the calls were cut")
    calls = _calls(body)
    expect(calls, "no call was made")
    for call in calls:
        _check(call)
    ids = [call["id"] for call in calls]
    expect(len(set(map(str, ids))) == len(ids), "two calls have one id")
    reason = first_choice(body).get("finish_reason")
    expect(reason == "tool_calls", f"finish_reason is {reason!r}")


def _none(target: Target) -> None:
    body = target.answer(messages=ASKING, tools=[WEATHER], tool_choice="none")
    expect(not message(body).get("tool_calls"), "tool_choice none, and a call was made")


def _absent(target: Target) -> None:
    given = message(target.plain).get("tool_calls", "absent")
    expect(given in ("absent", None), "an answer without calls holds tool_calls: []")


def _deltas(target: Target) -> list[Json]:
    deltas = [member(choice, "delta") for choice in choices_of(target.call_chunks)]
    found = [
        call
        for delta in deltas
        if delta.get("tool_calls")
        for call in objects(delta["tool_calls"], "delta.tool_calls")
    ]
    expect(found, "no delta holds tool_calls")
    return found


def _indexed(target: Target) -> None:
    for call in _deltas(target):
        expect(isinstance(call.get("index"), int), "a call's delta has no index")
        expect(isinstance(call.get("function"), dict), "a call's delta has no function")


def _once(target: Target) -> None:
    calls = _deltas(target)
    for what, values in (
        ("id", [call["id"] for call in calls if call.get("id")]),
        ("name", [name for call in calls if (name := member(call, "function").get("name"))]),
    ):
        expect(len(values) == 1, f"the {what} came {len(values)} times; clients concatenate it")


def _joined(target: Target) -> None:
    pieces = [str(member(call, "function").get("arguments") or "") for call in _deltas(target)]
    given = _arguments("".join(pieces))
    expect(isinstance(given.get("city"), str), f"the arguments break the schema: {given}")


def _result(target: Target) -> None:
    call = _calls(target.call)[0]
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call.get("id"), "content": "18 degrees, sunny"}
    body = target.answer(messages=[*ASKING, asked, result], tools=[WEATHER], max_tokens=32)
    expect(first_choice(body).get("finish_reason"), "the answer was not finished")


FACTS = (
    Fact("tools.named", "A named tool is called, with arguments that fit.", _named),
    Fact("tools.required", "required makes a call, finished with tool_calls.", _required),
    Fact("tools.none", "none makes none.", _none),
    Fact("tools.absent", "An answer without calls has no empty tool_calls.", _absent),
    Fact("tools.delta-index", "Every delta of a call has its index.", _indexed),
    Fact("tools.delta-once", "Id and name are in one delta of a call.", _once),
    Fact("tools.delta-joined", "The pieces of the arguments join to JSON.", _joined),
    Fact("tools.result", "A call and its result are taken back.", _result),
)
