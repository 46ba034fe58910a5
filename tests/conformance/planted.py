"""Defects to plant in a server that has none: each spoils its answers on their way out.

They are those that were seen in other servers (facts in the project's design notes on the wire).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Json = dict[str, Any]  # whatever an answer holds

Chunks = list[Json]


@dataclass(frozen=True, slots=True)
class Defect:
    """What is spoilt, and the fact that must find it. ``stream`` changes a stream's chunks, each
    call of it those of one frame; ``body`` a JSON body; ``head`` the status and headers."""

    fact: str
    stream: Callable[[Json], Chunks] | None = None
    body: Callable[[Json, int], Json] | None = None
    head: Callable[[Message], None] | None = None
    done: bytes = b"data: [DONE]\n\n"


def _deltas(chunk: Json) -> list[Json]:
    return [choice["delta"] for choice in chunk["choices"] if "delta" in choice]


def _each_delta(change: Callable[[Json], None]) -> Callable[[Json], Chunks]:
    def stream(chunk: Json) -> Chunks:
        for delta in _deltas(chunk):
            change(delta)
        return [chunk]

    return stream


def _each_call(change: Callable[[Json], None]) -> Callable[[Json], Chunks]:
    def stream(chunk: Json) -> Chunks:
        for delta in _deltas(chunk):
            for call in delta.get("tool_calls", ()):
                change(call)
        return [chunk]

    return stream


def _new_id(chunk: Json) -> Chunks:
    return [{**chunk, "id": f"{chunk['id']}-{id(chunk)}-{len(json.dumps(chunk))}"}]


def _usage_everywhere(chunk: Json) -> Chunks:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return [{**chunk, "usage": usage}]


def _no_usage(chunk: Json) -> Chunks:
    return [chunk] if chunk["choices"] else []


def _finish_twice(chunk: Json) -> Chunks:
    ended = any(choice.get("finish_reason") for choice in chunk["choices"])
    return [chunk, chunk] if ended else [chunk]


def _backwards(chunk: Json) -> Chunks:
    choices = [{**choice, "index": 1 - choice["index"]} for choice in chunk["choices"]]
    return [{**chunk, "choices": choices}]


def _half_characters(delta: Json) -> None:
    if delta.get("content"):
        delta["content"] = delta["content"].replace("🦜", "\ufffd")


def _without_index(call: Json) -> None:
    del call["index"]


def _named_again(call: Json) -> None:
    call["id"] = "call_1"
    call["function"]["name"] = "get_weather"


def _cut_arguments(call: Json) -> None:
    call["function"]["arguments"] = call["function"]["arguments"].removesuffix("}")


def _flat(body: Json, status: int) -> Json:
    return {"detail": body["error"]["message"]} if status >= 400 else body


def _number(body: Json, status: int) -> Json:
    return {"error": {**body["error"], "code": status}} if status >= 400 else body


def _in_choice(change: Callable[[Json], None]) -> Callable[[Json, int], Json]:
    def body(found: Json, status: int) -> Json:
        for choice in found.get("choices", ()) if status == 200 else ():
            change(choice)
        return found

    return body


def _no_refusal(choice: Json) -> None:
    if choice.get("logprobs"):
        choice["logprobs"].pop("refusal", None)


def _empty_calls(choice: Json) -> None:
    choice["message"].setdefault("tool_calls", [])


def _no_request_id(head: Message) -> None:
    head["headers"] = [pair for pair in head["headers"] if pair[0] != b"x-request-id"]


def _server_error(head: Message) -> None:
    head["status"] = 500 if head["status"] == 400 else head["status"]


def _says_role(delta: Json) -> None:
    delta["role"] = "assistant"


DEFECTS: Mapping[str, Defect] = {
    "role in every delta": Defect("stream.role-once", stream=_each_delta(_says_role)),
    "another id in each chunk": Defect("stream.identity", stream=_new_id),
    "no end": Defect("stream.framing", done=b""),
    "usage unasked": Defect("stream.usage-unasked", stream=_usage_everywhere),
    "no usage": Defect("stream.usage-last", stream=_no_usage),
    "finished twice": Defect("stream.finish-once", stream=_finish_twice),
    "choices out of order": Defect("stream.choices", stream=_backwards),
    "half characters": Defect("stream.utf8", stream=_each_delta(_half_characters)),
    "calls without index": Defect("tools.delta-index", stream=_each_call(_without_index)),
    "calls named again": Defect("tools.delta-once", stream=_each_call(_named_again)),
    "arguments cut": Defect("tools.delta-joined", stream=_each_call(_cut_arguments)),
    "empty calls": Defect("tools.absent", body=_in_choice(_empty_calls)),
    "logprobs without refusal": Defect("answer.logprobs", body=_in_choice(_no_refusal)),
    "flat errors": Defect("error.shape", body=_flat),
    "numbers as codes": Defect("error.shape", body=_number),
    "no request id": Defect("headers.request-id", head=_no_request_id),
    "mistakes as failures": Defect("error.temperature", head=_server_error),
}


class Planted:
    """An application with one defect."""

    def __init__(self, app: ASGIApp, defect: Defect) -> None:
        self._app = app
        self._defect = defect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, _Spoiler(send, self._defect).send)
        else:
            await self._app(scope, receive, send)


class _Spoiler:
    def __init__(self, send: Send, defect: Defect) -> None:
        self._send = send
        self._defect = defect
        self._head: Message = {}
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            if self._defect.head is not None:
                self._defect.head(message)
            if self._streams:
                await self._send(message)
        elif self._streams:
            await self._send({**message, "body": self._frames(message.get("body", b""))})
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_body()

    @property
    def _streams(self) -> bool:
        kind: bytes = dict(self._head["headers"])[b"content-type"]
        return kind.startswith(b"text/event-stream")

    def _frames(self, data: bytes) -> bytes:
        out = b""
        for frame in data.split(b"\n\n"):
            if frame == b"data: [DONE]":
                out += self._defect.done
            elif frame:
                for chunk in self._spoilt(json.loads(frame.removeprefix(b"data: "))):
                    out += b"data: " + json.dumps(chunk).encode() + b"\n\n"
        return out

    def _spoilt(self, chunk: Json) -> Chunks:
        is_chat = "choices" in chunk and self._defect.stream is not None
        return self._defect.stream(chunk) if is_chat and self._defect.stream else [chunk]

    async def _send_body(self) -> None:
        body = self._body
        if self._defect.body is not None:
            body = json.dumps(self._defect.body(json.loads(body), self._head["status"])).encode()
        kept = [pair for pair in self._head["headers"] if pair[0] != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._head, "headers": [*kept, length]})
        await self._send({"type": "http.response.body", "body": body})
