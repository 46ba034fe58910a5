"""POST /v1/chat/completions: wire request to Job on the left, ChatReply on the right."""

import time
import uuid
from collections.abc import AsyncGenerator

from starlette.types import Receive, Scope, Send

from qwen_openai.adapter.chat import chat_job
from qwen_openai.chat import Opened
from qwen_openai.core import Job
from qwen_openai.protocol.chat import ChatRequest, parse_chat
from qwen_openai.responses.chat import ChatReply
from qwen_openai.responses.fold import Fold
from qwen_openai.routes.body import read_json_bytes
from qwen_openai.routes.disconnect import until_disconnect
from qwen_openai.routes.gateway import Gateway
from qwen_openai.routes.notes import note_headers, note_usage
from qwen_openai.routes.respond import send_events, send_json
from qwen_openai.routes.work import off_loop
from qwen_openai.sse import frame


class ChatCompletions:
    """The endpoint, as an ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        raw = await read_json_bytes(scope, receive, gateway.settings)
        request, job = await off_loop(len(raw), self._adapt, raw)
        stream = request.streams
        always = stream and gateway.settings.always_stream_usage
        reply = ChatReply(
            id=job.id,
            model=job.model,
            created=int(time.time()),
            n=job.n,
            include_usage=request.include_usage or always,
        )
        await until_disconnect(receive, self._answer(scope, send, job, reply, stream))

    def _adapt(self, raw: bytes) -> tuple[ChatRequest, Job]:
        gateway = self._gateway
        request = parse_chat(
            raw,
            max_messages=gateway.limits.max_messages,
            tools=gateway.family.tools is not None,
        )
        gateway.check_model(request.model)
        job = chat_job(
            request,
            id=f"chatcmpl-{uuid.uuid4().hex}",
            family=gateway.family,
            limits=gateway.limits,
        )
        return request, job

    async def _answer(
        self, scope: Scope, send: Send, job: Job, reply: ChatReply, stream: bool
    ) -> None:
        fold = Fold(job.n)
        opened = await self._gateway.service.open(job)
        try:
            headers = note_headers(opened.changes, job.ignored)
            if stream:
                await send_events(send, _frames(opened, reply, fold), headers=headers)
            else:
                async for event in opened:
                    fold.add(event)
                await send_json(send, reply.body(fold), headers=headers)
        finally:
            note_usage(scope, fold.usage)
            await opened.aclose()


async def _frames(opened: Opened, reply: ChatReply, fold: Fold) -> AsyncGenerator[bytes, None]:
    for opening in reply.opening():
        yield frame(opening)
    async for event in opened:
        fold.add(event)
        chunk = reply.chunk(event)
        if chunk is not None:
            yield frame(chunk)
    for closing in reply.closing(fold.usage):
        yield frame(closing)
