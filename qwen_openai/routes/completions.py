"""POST /v1/completions: wire request to Jobs on the left, CompletionReply on the right."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from qwen_openai.adapter.completions import completion_jobs
from qwen_openai.core import Job
from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.completions import CompletionRequest, parse_completion
from qwen_openai.responses.completions import CompletionReply, Wanted
from qwen_openai.responses.fold import Fold
from qwen_openai.routes.disconnect import until_disconnect
from qwen_openai.routes.gateway import Caller, Gateway, Served
from qwen_openai.routes.generate import Asked, answer, read


class Completions:
    """The endpoint, as an ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read_ = await read(self._gateway, scope, receive, self._adapt)
        await until_disconnect(scope, receive, self._answer(scope, send, *read_))

    def _adapt(
        self, raw: bytes, caller: Caller
    ) -> tuple[CompletionRequest, Served, tuple[Job, ...]]:
        gateway = self._gateway
        request = parse_completion(raw, strict=caller.strict)
        served = gateway.served(request.model, caller.key)
        jobs = completion_jobs(
            request,
            id=f"cmpl-{uuid.uuid4().hex}",
            family=served.family,
            limits=gateway.limits,
            refuses=served.refuses,
        )
        if served.hands_on:
            asked = request.as_asked()
            jobs = tuple(replace(job, asked=asked) for job in jobs)
        return request, served, jobs

    async def _answer(
        self,
        scope: Scope,
        send: Send,
        request: CompletionRequest,
        served: Served,
        jobs: tuple[Job, ...],
    ) -> None:
        gateway = self._gateway
        always = gateway.settings.always_stream_usage
        wanted = Wanted(
            n=request.n or 1,
            echoes=await self._texts(served, request.prompts) if request.echo else (),
            logprobs=request.logprobs,
            include_usage=request.streams and (request.include_usage or always),
        )
        reply = CompletionReply(
            id=jobs[0].id,
            model=request.model,
            created=int(time.time()),
            system_fingerprint=served.fingerprint,
            wanted=wanted,
        )
        fold = Fold(request.made, prompts=len(request.prompts))
        asked = Asked(served, jobs, reply, fold, request.streams, "prompt")
        await answer(gateway, scope, send, asked)

    async def _texts(self, served: Served, prompts: Sequence[str | tuple[int, ...]]) -> list[str]:
        """Return prompts as texts, also those that came as token ids."""
        texts = []
        for prompt in prompts:
            if isinstance(prompt, str):
                texts.append(prompt)
                continue
            try:
                pieces = await self._gateway.detokenize(served, prompt)
            except InvalidRequest as error:
                # Engines speak of tokens, this route's callers sent a prompt.
                raise InvalidRequest(error.message, param="prompt") from None
            texts.append(b"".join(pieces).decode("utf-8", "replace"))
        return texts
