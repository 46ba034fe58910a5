"""A client of streams, for tests: the chunks of an answer put together as the plain answer."""

import json
from typing import Any


def collect(data: list[str]) -> dict[str, object]:
    """Take the data of every event, the last of them [DONE]; return the answer they make, after
    checking what clients rely on: one role, one finish reason a choice, indices in order."""
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
        own = choices[choice["index"]]
        assert own["finish_reason"] is None, "nothing comes after the finish reason"
        message = own["message"]
        message["content"] += delta.get("content", "")
        for call in delta.get("tool_calls", ()):
            _add(message.setdefault("tool_calls", []), call)
        own["finish_reason"] = choice["finish_reason"]
    for choice in choices:
        if "tool_calls" in choice["message"]:
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
