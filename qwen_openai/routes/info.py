"""The small GET endpoints: models, capabilities and health."""

from starlette.datastructures import QueryParams
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from qwen_openai.errors import EngineUnavailable
from qwen_openai.responses.capabilities import Runs, capabilities_body
from qwen_openai.responses.models import model_list, model_object
from qwen_openai.routes.gateway import Gateway, Served
from qwen_openai.routes.notes import key_of
from qwen_openai.routes.respond import send_json


class ListModels:
    """GET /v1/models."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        await send_json(send, model_list(gateway.names_for(key_of(scope)), gateway.created))


class RetrieveModel:
    """GET /v1/models/{id}; an id may hold slashes, encoded or not."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name: str = scope["path_params"]["model"]
        self._gateway.served(name, key_of(scope))
        await send_json(send, model_object(name, self._gateway.created))


class Capabilities:
    """GET /v1/capabilities: what this server does with every parameter, for a
    model: the one that `?model=` names, or the usual one."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        name, served = _asked_for(gateway, scope)
        info = served.engine.info()
        runs = Runs(info.engine, info.context, info.refuses, info.hands_on)
        body = capabilities_body(name, runs, served.family, _endpoints(scope))
        await send_json(send, body)


def _asked_for(gateway: Gateway, scope: Scope) -> tuple[str, Served]:
    """Return the model that `?model=` names, else the usual one."""
    name = QueryParams(scope["query_string"]).get("model")
    key = key_of(scope)
    return (name, gateway.served(name, key)) if name else gateway.default(key)


def _endpoints(scope: Scope) -> list[str]:
    """Return "GET /path" for every route of the API; pages for people are not in its schema."""
    return [
        f"{method} {route.path_format}"
        for route in scope["app"].routes
        if isinstance(route, Route) and route.include_in_schema
        for method in sorted(route.methods or ())
    ]


class Live:
    """GET /health/live: the process answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, {"status": "live"})


class Ready:
    """GET /health/ready: a request sent now would be taken; else 503 with the reason. What is
    amiss beside that, and keeps nobody out, is told in the detail."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        health = self._gateway.health()
        if not health.ready:
            raise EngineUnavailable(health.detail, retry_after=2)
        trouble = self._gateway.bookkeeper.trouble
        detail = f"degraded: {trouble}" if trouble else health.detail
        await send_json(send, {"status": "ready", "detail": detail})
