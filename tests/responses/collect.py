"""A client of streams, for tests: the chunks of an answer put together as the plain answer."""

import json
from typing import Any


def collect(data: list[str], *, logprobs: bool = False) -> dict[str, object]:
    """Take the data of every event, the last of them [DONE]; return the answer they make, after
    checking what clients rely on: one role, one finish reason a choice, indices in order. With
    `logprobs` they were asked for."""
    *events, done = data
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    usage = chunks.pop()
    assert usage["choices"] == []
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    choices: list[dict[str, Any]] = []
    for chunk in chunks:
        assert chunk["usage"] is None
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        if "role" in delta:
            assert choice["index"] == len(choices), "indices first appear in ascending order"
            message = {"role": delta["role"], "content": "", "refusal": None}
            choices.append({**choice, "message": message})
            del choices[-1]["delta"]
            choices[-1]["logprobs"] = {"content": [], "refusal": None} if logprobs else None
        own = choices[choice["index"]]
        assert own["finish_reason"] is None, "nothing comes after the finish reason"
        message = own["message"]
        message["content"] += delta.pop("content", "")
        delta.pop("role", None)
        for call in delta.pop("tool_calls", ()):
            _add(message.setdefault("tool_calls", []), call)
        if "function_call" in delta:
            _add_function(message, delta.pop("function_call"))
        for name, thought in delta.items():
            assert name in ("reasoning_content", "reasoning")
            message[name] = message.get(name, "") + thought
        if choice["logprobs"] is not None:
            own["logprobs"]["content"] += choice["logprobs"]["content"]
        own["finish_reason"] = choice["finish_reason"]
    for choice in choices:
        if choice["message"].keys() & {"tool_calls", "function_call"}:
            choice["message"]["content"] = choice["message"]["content"] or None
    return {**usage, "object": "chat.completion", "choices": choices}


def _add(calls: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    """Take one piece of a call: the first of an index names it, all later ones only add to it."""
    index = delta.pop("index")
    if index == len(calls):
        assert set(delta) == {"id", "type", "function"}
        calls.append(delta)
    else:
        assert index < len(calls), "indices first appear in ascending order"
        assert delta.keys() == {"function"}
        assert delta["function"].keys() == {"arguments"}
        calls[index]["function"]["arguments"] += delta["function"]["arguments"]


def _add_function(message: dict[str, Any], delta: dict[str, Any]) -> None:
    """Take one piece of a call in its older form."""
    if "function_call" not in message:
        assert delta.keys() == {"name", "arguments"}
        message["function_call"] = delta
    else:
        assert delta.keys() == {"arguments"}
        message["function_call"]["arguments"] += delta["arguments"]
