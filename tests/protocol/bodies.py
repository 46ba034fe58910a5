"""Chat bodies for tests: a small valid one, and changes to it."""

import json

import orjson
import pytest

from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.chat import ChatRequest, parse_chat
from tests.spec import check

HELLO: list[object] = [{"role": "user", "content": "hi"}]


def chat_body(**changes: object) -> bytes:
    """A small valid body with changes; a value of ... takes the member away."""
    body = {"model": "m", "messages": HELLO, **changes}
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


def parsed(**changes: object) -> ChatRequest:
    """The request of such a body."""
    return parse_chat(chat_body(**changes))


def message_body(content: object, role: object = "user", **more: object) -> bytes:
    """A body of one message."""
    return chat_body(messages=[{"role": role, "content": content, **more}])


def refused(body: bytes) -> InvalidRequest:
    """The refusal of a body, checked to be short, and valid on the wire."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body)
    wire = orjson.dumps({"error": caught.value.to_object()})
    assert len(wire) < 600
    check("ErrorResponse", orjson.loads(wire))
    return caught.value
