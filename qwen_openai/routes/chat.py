"""POST /v1/chat/completions: wire request to Job on the left, ChatReply on the right."""

import os
import time
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from qwen_openai.adapter.chat import chat_job
from qwen_openai.core import Job
from qwen_openai.protocol.chat import ChatRequest, parse_chat
from qwen_openai.protocol.fields import refuse_ignored
from qwen_openai.responses.chat import ChatReply, Wanted
from qwen_openai.responses.fold import Fold
from qwen_openai.routes.gateway import Caller, Gateway, Served
from qwen_openai.routes.generate import Asked, generate


class ChatCompletions:
    """The endpoint, as an ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await generate(self._gateway, scope, receive, send, self._adapt)

    def _adapt(self, raw: bytes, caller: Caller) -> Asked:
        gateway = self._gateway
        request, served, job = adapt_chat(gateway, raw, caller)
        stream = request.streams
        always = gateway.settings.always_stream_usage
        wanted = Wanted(
            n=job.n,
            include_usage=stream and (request.include_usage or always),
            reasoning=gateway.settings.reasoning_field,
            legacy_functions=request.functions is not None,
            logprobs=job.sampling.logprobs is not None,
        )
        reply = ChatReply(
            id=job.id,
            model=job.model,
            created=int(time.time()),
            system_fingerprint=served.fingerprint,
            wanted=wanted,
        )
        # Copying a job is not for nothing: most requests ask for one answer, which is number 0.
        more = (replace(job, choice=index) for index in range(1, job.n))
        jobs = (job, *more)
        return Asked(served, jobs, reply, Fold(job.n), stream)


def adapt_chat(gateway: Gateway, raw: bytes, caller: Caller) -> tuple[ChatRequest, Served, Job]:
    """Return the request in a chat body, its model and its job. Raises what `parse_chat` and
    `chat_job` raise, and ModelNotFound."""
    request = parse_chat(raw, max_messages=gateway.limits.max_messages, strict=caller.strict)
    served = gateway.served(request.model, caller.key)
    return request, served, chat_job_of(gateway, served, request, strict=caller.strict)


def chat_job_of(gateway: Gateway, served: Served, request: ChatRequest, *, strict: bool) -> Job:
    """Return the job of a request. Raises what `chat_job` raises; with `strict` also
    UnsupportedParameter for what has no effect on this model."""
    job = chat_job(
        request,
        id=f"chatcmpl-{os.urandom(16).hex()}",
        family=served.family,
        limits=gateway.limits,
        refuses=served.refuses,
        asked=request.as_asked() if served.hands_on else None,
    )
    if strict:
        refuse_ignored(job.ignored)
    return job
