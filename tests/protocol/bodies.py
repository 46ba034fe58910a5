"""Chat bodies for tests: a small valid one, and changes to it."""

import json

from qwen_openai.protocol.chat import ChatRequest, parse_chat

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
