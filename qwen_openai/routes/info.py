"""The small GET endpoints: models and health."""

from starlette.types import Receive, Scope, Send

from qwen_openai.errors import EngineUnavailable
from qwen_openai.responses.models import model_list, model_object
from qwen_openai.routes.gateway import Gateway
from qwen_openai.routes.respond import send_json


class ListModels:
    """GET /v1/models."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        await send_json(send, model_list(gateway.model_names, gateway.created))


class RetrieveModel:
    """GET /v1/models/{id}; an id may hold slashes, encoded or not."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name: str = scope["path_params"]["model"]
        self._gateway.check_model(name)
        await send_json(send, model_object(name, self._gateway.created))


class Live:
    """GET /health/live: the process answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, {"status": "live"})


class Ready:
    """GET /health/ready: a request sent now would be taken; else 503 with the reason."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        health = self._gateway.health()
        if not health.ready:
            raise EngineUnavailable(health.detail, retry_after=2)
        await send_json(send, {"status": "ready", "detail": health.detail})
