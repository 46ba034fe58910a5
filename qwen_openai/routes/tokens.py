"""POST /tokenize, POST /detokenize and the counting of a request's tokens: text and tokens.

Nothing is generated, so nothing waits for a slot; what an engine's tokenizer does at once is
bounded by the gateway.
"""

import uuid

from starlette.types import Receive, Scope, Send

from qwen_openai.core import Job, RawPrompt
from qwen_openai.protocol.chat import ChatRequest
from qwen_openai.protocol.tokens import (
    DetokenizeRequest,
    TokenizeRequest,
    parse_detokenize,
    parse_tokenize,
)
from qwen_openai.responses.tokens import (
    Counted,
    detokenize_body,
    input_tokens_body,
    tokenize_body,
)
from qwen_openai.routes.chat import adapt_chat, chat_job_of
from qwen_openai.routes.disconnect import until_disconnect
from qwen_openai.routes.entry import counted
from qwen_openai.routes.gateway import Caller, Gateway, Served
from qwen_openai.routes.generate import read
from qwen_openai.routes.notes import note_headers
from qwen_openai.routes.respond import send_json
from qwen_openai.routes.responses_api import adapt_responses
from qwen_openai.routes.work import off_loop

# About what a token is in an answer.
_TOKEN_BYTES = 8


class Tokenize:
    """POST /tokenize: the tokens of a text, or of a conversation as the model is shown it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read_ = await read(self._gateway, scope, receive, self._adapt)
        await until_disconnect(scope, receive, self._answer(scope, send, *read_))

    def _adapt(self, raw: bytes, caller: Caller) -> tuple[Served, Job, bool]:
        gateway = self._gateway
        most = gateway.limits.max_messages
        request, with_texts = parse_tokenize(raw, max_messages=most, strict=caller.strict)
        served = gateway.named(request.model, caller.key)
        return served, self._job(served, request, strict=caller.strict), with_texts

    def _job(self, served: Served, request: TokenizeRequest | ChatRequest, *, strict: bool) -> Job:
        if isinstance(request, ChatRequest):
            return chat_job_of(self._gateway, served, request, strict=strict)
        return Job(
            id=f"tokenize-{uuid.uuid4().hex}",
            model=request.model,
            messages=(),
            prompt=RawPrompt(request.prompt),
            ignored=request.ignored,
        )

    async def _answer(
        self, scope: Scope, send: Send, served: Served, job: Job, with_texts: bool
    ) -> None:
        engine = served.engine
        with counted(self._gateway, scope):
            async with self._gateway.tokenizing:
                ids = await engine.tokenize(job)
                pieces = await engine.detokenize(ids) if with_texts else None
        body = await off_loop(
            len(ids) * _TOKEN_BYTES, tokenize_body, ids, engine.info().context, pieces
        )
        await send_json(send, body, headers=note_headers(job.changes, job.ignored))


class Detokenize:
    """POST /detokenize: the text of tokens."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read_ = await read(self._gateway, scope, receive, self._adapt)
        await until_disconnect(scope, receive, self._answer(scope, send, *read_))

    def _adapt(self, raw: bytes, caller: Caller) -> tuple[Served, DetokenizeRequest]:
        request = parse_detokenize(raw, strict=caller.strict)
        return self._gateway.named(request.model, caller.key), request

    async def _answer(
        self, scope: Scope, send: Send, served: Served, request: DetokenizeRequest
    ) -> None:
        with counted(self._gateway, scope):
            pieces = await self._gateway.detokenize(served, request.tokens)
        headers = note_headers((), request.ignored)
        body = await off_loop(len(pieces) * _TOKEN_BYTES, detokenize_body, pieces)
        await send_json(send, body, headers=headers)


class ChatInputTokens:
    """POST /v1/chat/completions/input_tokens: how many tokens a chat body's prompt has."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read_ = await read(self._gateway, scope, receive, self._adapt)
        count = _Count(self._gateway, "chat.completion")
        await until_disconnect(scope, receive, count(scope, send, *read_))

    def _adapt(self, raw: bytes, caller: Caller) -> tuple[Served, Job]:
        _, served, job = adapt_chat(self._gateway, raw, caller)
        return served, job


class ResponsesInputTokens:
    """POST /v1/responses/input_tokens: how many tokens a responses body's prompt has. Here, as in
    the specification, `model` may be left out."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read_ = await read(self._gateway, scope, receive, self._adapt)
        count = _Count(self._gateway, "response")
        await until_disconnect(scope, receive, count(scope, send, *read_))

    def _adapt(self, raw: bytes, caller: Caller) -> tuple[Served, Job]:
        _, served, job = adapt_responses(self._gateway, raw, caller)
        return served, job


class _Count:
    """Answers with the number of a prompt's tokens, as what ``of`` says."""

    def __init__(self, gateway: Gateway, of: Counted) -> None:
        self._gateway = gateway
        self._of = of

    async def __call__(self, scope: Scope, send: Send, served: Served, job: Job) -> None:
        with counted(self._gateway, scope):
            async with self._gateway.tokenizing:
                ids = await served.engine.tokenize(job)
        headers = note_headers(job.changes, job.ignored)
        await send_json(send, input_tokens_body(len(ids), self._of), headers=headers)
