"""POST /v1/responses: wire request to Job on the left, ResponsesReply on the right."""

import time
import uuid

from starlette.types import Receive, Scope, Send

from qwen_openai.adapter.responses_api import responses_job
from qwen_openai.core import Job
from qwen_openai.protocol.fields import refuse_ignored
from qwen_openai.protocol.responses_api import ResponsesRequest, parse_responses
from qwen_openai.responses.responses_api import ResponseFold, ResponsesReply
from qwen_openai.routes.gateway import Caller, Gateway, Served
from qwen_openai.routes.generate import Asked, generate


class Responses:
    """The endpoint, as an ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await generate(self._gateway, scope, receive, send, self._adapt)

    def _adapt(self, raw: bytes, caller: Caller) -> Asked:
        request, served, job = adapt_responses(self._gateway, raw, caller)
        self._gateway.served(request.model, caller.key)  # Here a model must be named.
        fold = ResponseFold(job.id)
        reply = ResponsesReply(request, job, fold, created=int(time.time()))
        return Asked(served, (job,), reply, fold, request.streams, "input")


def adapt_responses(
    gateway: Gateway, raw: bytes, caller: Caller
) -> tuple[ResponsesRequest, Served, Job]:
    """Return the request in a body, its model and its job. Raises what `parse_responses` and
    `responses_job` raise, and ModelNotFound for a model that is not ours; with `strict` also
    UnsupportedParameter for what has no effect on this model."""
    request = parse_responses(raw, max_messages=gateway.limits.max_messages, strict=caller.strict)
    served = gateway.named(request.model, caller.key)
    job = responses_job(
        request,
        id=f"resp_{uuid.uuid4().hex}",
        family=served.family,
        limits=gateway.limits,
        refuses=served.refuses,
        hands_on=served.hands_on,
    )
    if caller.strict:
        refuse_ignored(job.ignored)
    return request, served, job
