"""POST /: the original tutorial's contract, on the same pipe as everything else."""

import uuid
from datetime import datetime

from starlette.types import Receive, Scope, Send

from qwen_openai.adapter.legacy import legacy_job
from qwen_openai.core import Job
from qwen_openai.errors import ContextLengthExceeded
from qwen_openai.protocol.legacy import LegacyRequest, parse_legacy
from qwen_openai.responses.fold import Fold
from qwen_openai.responses.legacy import legacy_body
from qwen_openai.routes.body import read_json_bytes
from qwen_openai.routes.disconnect import until_disconnect
from qwen_openai.routes.gateway import Gateway
from qwen_openai.routes.notes import note_headers, note_usage
from qwen_openai.routes.respond import send_json
from qwen_openai.routes.work import off_loop


class LegacyChat:
    """The endpoint, as an ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = await read_json_bytes(scope, receive, self._gateway.settings, accept_form=True)
        request, job = await off_loop(len(raw), self._adapt, raw)
        await until_disconnect(receive, self._answer(scope, send, request, job))

    def _adapt(self, raw: bytes) -> tuple[LegacyRequest, Job]:
        gateway = self._gateway
        request = parse_legacy(raw)
        job = legacy_job(
            request,
            id=f"legacy-{uuid.uuid4().hex}",
            model=gateway.model_names[0],
            family=gateway.family,
        )
        return request, job

    async def _answer(self, scope: Scope, send: Send, request: LegacyRequest, job: Job) -> None:
        fold = Fold(1)
        try:
            opened = await self._gateway.service.open(job)
        except ContextLengthExceeded as error:
            # Engines speak of messages; this route's callers sent a prompt.
            raise ContextLengthExceeded(error.message, param="prompt") from None
        try:
            async for event in opened:
                fold.add(event)
            # The tutorial's callers show this time to people: the server's local time, unzoned.
            now = datetime.now()
            body = legacy_body(fold.choices[0].text, request.history, request.prompt, now)
            await send_json(send, body, headers=note_headers(opened.changes, job.ignored))
        finally:
            note_usage(scope, fold.usage)
            await opened.aclose()
