"""POST /: the original tutorial's contract, on the same pipe as everything else."""

import uuid
from datetime import datetime

from starlette.types import Receive, Scope, Send

from qwen_openai.adapter.legacy import legacy_job
from qwen_openai.core import Job
from qwen_openai.gateway.keys import Key
from qwen_openai.protocol.legacy import LegacyRequest, parse_legacy
from qwen_openai.responses.fold import Fold
from qwen_openai.responses.legacy import legacy_body
from qwen_openai.routes.body import read_json_bytes
from qwen_openai.routes.disconnect import until_disconnect
from qwen_openai.routes.entry import entered
from qwen_openai.routes.gateway import Gateway, Served
from qwen_openai.routes.generate import open_jobs
from qwen_openai.routes.notes import key_of, note_headers, record_of
from qwen_openai.routes.respond import send_json
from qwen_openai.routes.work import off_loop


class LegacyChat:
    """The endpoint, as an ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = await read_json_bytes(scope, receive, self._gateway.settings, accept_form=True)
        adapted = await off_loop(len(raw), self._adapt, raw, key_of(scope))
        await until_disconnect(scope, receive, self._answer(scope, send, *adapted))

    def _adapt(self, raw: bytes, key: Key) -> tuple[LegacyRequest, Served, Job]:
        request = parse_legacy(raw)
        name, served = self._gateway.default(key)
        job = legacy_job(request, id=f"legacy-{uuid.uuid4().hex}", model=name, family=served.family)
        return request, served, job

    async def _answer(
        self, scope: Scope, send: Send, request: LegacyRequest, served: Served, job: Job
    ) -> None:
        fold = Fold(1)
        record = record_of(scope)
        record.model = job.model
        with entered(self._gateway, scope, [job]) as entry:
            opened = await open_jobs(served, [job], entry, prompt_param="prompt")
            try:
                async for event in opened:
                    fold.add(event)
                # The tutorial's callers show this time to people: the server's local time, unzoned.
                now = datetime.now()
                body = legacy_body(fold.choices[0].text, request.history, request.prompt, now)
                await send_json(send, body, headers=note_headers(opened.changes, job.ignored))
            finally:
                record.usage = fold.usage
                await opened.aclose()
