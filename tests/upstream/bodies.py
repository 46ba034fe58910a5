"""What a mock answers, as bytes: OpenAI's shapes, from a request's body and a Behaviour."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tests.upstream.behaviour import Behaviour, asked_for
from tests.upstream.deltas import delta, whole

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
TOKENIZE = "/tokenize"
TOKENIZE_V1 = "/v1/tokenize"
DONE = b"[DONE]"
LONG_LINE = 10_000_000
PAGE = b"<html><body><h1>It works!</h1></body></html>"
ARGUMENTS = '{"city": "Paris"}'


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the mock reads it: ``tag`` names its numbered pieces, and is the text of the
    last message or the prompt."""

    path: str
    body: dict[str, Any]
    how: Behaviour
    tag: str
    authorization: str

    @property
    def model(self) -> str:
        return self.how.model or str(self.body.get("model", "m"))

    @property
    def count(self) -> int:
        """How many pieces the answer has."""
        if self.how.deltas is not None:
            return self.how.deltas
        limit = self.body.get("max_tokens") or self.body.get("max_completion_tokens")
        return int(limit or 16)

    @property
    def is_chat(self) -> bool:
        return self.path == CHAT

    @property
    def calls(self) -> str:
        """The name of the tool that the answer calls, "" for none: the first one, unless the last
        message is a tool's result."""
        tools = self.body.get("tools")
        last = (self.body.get("messages") or [{}])[-1]
        if not tools or last.get("role") == "tool" or self.body.get("tool_choice") == "none":
            return ""
        return str(tools[0]["function"]["name"])


def read(path: str, raw: bytes, authorization: str, base: Behaviour) -> Asked:
    """Read a request's body. Raises ValueError for what is none."""
    body = orjson.loads(raw) if raw else {}
    tag = _text_of(body)
    texts = [str(body.get("user") or ""), str(body.get("model") or ""), tag]
    return Asked(path, body, asked_for(texts, base), tag, authorization)


def _text_of(body: dict[str, Any]) -> str:
    prompt = body.get("prompt", "")
    if messages := body.get("messages"):
        prompt = messages[-1].get("content", "")
    if isinstance(prompt, list):
        prompt = "".join(part.get("text", "") for part in prompt if isinstance(part, dict))
    return prompt if isinstance(prompt, str) else ""


def models(names: list[str], context: int) -> bytes:
    """Return the body of GET /v1/models, in vLLM's form."""
    rows = [
        {
            "id": name,
            "object": "model",
            "created": 1,
            "owned_by": "vllm",
            "max_model_len": context,
        }
        for name in names
    ]
    return orjson.dumps({"object": "list", "data": rows})


def failure(asked: Asked, address: str) -> bytes:
    """Return the body of an error."""
    how = asked.how
    if how.html:
        return PAGE
    message = f"The mock answers {how.status}, as it was told to."
    if how.leak:
        message += f" You sent {asked.authorization!r} to http://{address}{asked.path}."
    code = how.code or str(how.status)
    error = {"message": message, "type": "mock_error", "param": None, "code": code}
    return orjson.dumps({"error": error})


def tokens(asked: Asked) -> bytes:
    """Return the body of POST /tokenize, in vLLM's form: a token for each word."""
    ids = list(range(len(asked.tag.split())))
    return orjson.dumps({"count": len(ids), "max_model_len": 4096, "tokens": ids})


def usage(asked: Asked, completion: int) -> dict[str, object]:
    """Return the usage of an answer: a prompt token for each word, an answer's for each piece."""
    prompt = len(asked.tag.split())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _logprobs(asked: Asked, text: str) -> dict[str, object] | None:
    if not asked.how.logprobs:
        return None
    top = [
        {"token": f"t{rank}", "logprob": -1.0 - rank, "bytes": [116]}
        for rank in range(asked.how.logprobs)
    ]
    entry = {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": top}
    return {"content": [entry], "refusal": None}


def plain(asked: Asked) -> bytes:
    """Return the whole answer of a request that is no stream."""
    if asked.how.html:
        return PAGE
    text = whole(asked.tag, asked.count, wide=asked.how.wide)
    choice: dict[str, object] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if not asked.is_chat:
        choice["text"] = text
    elif asked.calls:
        function = {"name": asked.calls, "arguments": ARGUMENTS}
        call = {"id": "call_mock_1", "type": "function", "function": function}
        choice["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice["finish_reason"] = "tool_calls"
    else:
        choice["message"] = {"role": "assistant", "content": text}
        choice["logprobs"] = _logprobs(asked, text)
    body = {**_frame(asked, stream=False), "choices": [choice]}
    if asked.how.usage:
        body["usage"] = usage(asked, asked.count)
    return orjson.dumps(body)


def pieces(asked: Asked) -> Iterator[bytes]:
    """Yield the data of the events that carry the answer, one for each piece."""
    shell = _frame(asked, stream=True)
    for index in range(asked.count):
        text = delta(asked.tag, index, wide=asked.how.wide)
        yield _piece(asked, shell, text)


def _piece(asked: Asked, shell: dict[str, object], text: str) -> bytes:
    choice: dict[str, object] = {"index": 0, "finish_reason": None}
    if asked.is_chat:
        choice["delta"] = {"content": text}
        choice["logprobs"] = _logprobs(asked, text)
    else:
        choice["text"] = text
    return orjson.dumps({**shell, "choices": [choice]})


def calling(asked: Asked) -> Iterator[bytes]:
    """Yield the data of the events of a tool call, its arguments in two parts."""
    shell = _frame(asked, stream=True)
    first = {
        "index": 0,
        "id": "call_mock_1",
        "type": "function",
        "function": {"name": asked.calls, "arguments": ""},
    }
    half = len(ARGUMENTS) // 2
    parts = [{"index": 0, "function": {"arguments": ARGUMENTS[:half]}}]
    parts += [{"index": 0, "function": {"arguments": ARGUMENTS[half:]}}]
    for call in (first, *parts):
        choice = {"index": 0, "finish_reason": None, "delta": {"tool_calls": [call]}}
        yield orjson.dumps({**shell, "choices": [choice]})


def opening(asked: Asked) -> Iterator[bytes]:
    """Yield the data of the events before the first piece."""
    if asked.is_chat:
        choice = {"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": ""}}
        yield orjson.dumps({**_frame(asked, stream=True), "choices": [choice]})


def closing(asked: Asked) -> Iterator[bytes]:
    """Yield the data of the events after the last piece, but for the last of all."""
    shell = _frame(asked, stream=True)
    if asked.how.ending != "nofinish":
        reason = "tool_calls" if asked.calls else "stop"
        choice: dict[str, object] = {"index": 0, "finish_reason": reason}
        if asked.is_chat:
            choice["delta"] = {}
        else:
            choice["text"] = ""
        yield orjson.dumps({**shell, "choices": [choice]})
    options = asked.body.get("stream_options") or {}
    if asked.how.usage and options.get("include_usage"):
        yield orjson.dumps({**shell, "choices": [], "usage": usage(asked, asked.count)})


def _frame(asked: Asked, *, stream: bool) -> dict[str, object]:
    if asked.is_chat:
        kind = "chat.completion.chunk" if stream else "chat.completion"
    else:
        kind = "text_completion"
    return {
        "id": "chatcmpl-mock",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
    }
