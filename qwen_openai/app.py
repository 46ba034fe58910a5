"""The application: endpoints, middleware and the OpenAPI page, put together.

`create_app` takes an engine that has been started; it neither starts nor stops it.
"""

from collections.abc import Callable
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from qwen_openai import __version__
from qwen_openai.engines.base import Engine
from qwen_openai.protocol.chat import ChatRequest
from qwen_openai.protocol.completions import CompletionRequest
from qwen_openai.protocol.legacy import LegacyRequest
from qwen_openai.protocol.responses_api import ResponsesRequest
from qwen_openai.protocol.tokens import DetokenizeRequest, TokenizeRequest
from qwen_openai.routes.auth import KeyCheck
from qwen_openai.routes.chat import ChatCompletions
from qwen_openai.routes.completions import Completions
from qwen_openai.routes.cross_origin import CrossOriginHeaders, Preflight
from qwen_openai.routes.gateway import Gateway
from qwen_openai.routes.info import Capabilities, ListModels, Live, Ready, RetrieveModel
from qwen_openai.routes.legacy import LegacyChat
from qwen_openai.routes.metrics import ReadMetrics
from qwen_openai.routes.middleware import ConnectionLimit, Envelope, HostCheck
from qwen_openai.routes.proxies import TrustedProxies
from qwen_openai.routes.responses_api import Responses
from qwen_openai.routes.shortcut import Shortcut
from qwen_openai.routes.tokens import ChatInputTokens, Detokenize, ResponsesInputTokens, Tokenize
from qwen_openai.routes.usage import ReadUsage
from qwen_openai.settings import Settings
from qwen_openai.settings.checks import networks

_SUMMARIES = {
    "/v1/chat/completions": "Answer a conversation, whole or as a stream",
    "/v1/chat/completions/input_tokens": "Count the tokens of a conversation",
    "/v1/responses": "Answer a conversation, as items",
    "/v1/responses/input_tokens": "Count the tokens of a conversation of items",
    "/v1/completions": "Go on with a text, or fill in its middle",
    "/tokenize": "The tokens of a text or of a conversation",
    "/detokenize": "The text of tokens",
    "/v1/models": "List the models that this server answers as",
    "/v1/models/{model}": "Describe one model",
    "/v1/capabilities": "What this server does with every parameter",
    "/v1/usage": "What the caller's key has used",
    "/": "The original tutorial's chat route",
    "/metrics": "Numbers for Prometheus",
    "/health/live": "Whether the process answers",
    "/health/ready": "Whether a request sent now would be taken",
}
_BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/chat/completions/input_tokens": ChatRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/responses/input_tokens": ResponsesRequest,
    "/v1/completions": CompletionRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/": LegacyRequest,
}


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """Build the ASGI application for a started engine, for the settings' upstreams, or for both.

    The endpoints are plain ASGI applications and not FastAPI functions: they stream, they watch
    for disconnects and they validate by themselves, all of which FastAPI's wrapping would undo.
    """
    gateway = Gateway(settings, engine)
    app = _Application(
        title="qwen-openai",
        version=__version__,
        description="OpenAI-compatible chat API for Qwen.",
        docs_url="/docs" if settings.docs else None,
        openapi_url="/openapi.json" if settings.docs else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.gateway = gateway
    # The router's 404 and 405 go on to Envelope, which knows our bodies.
    app.add_exception_handler(HTTPException, _pass_on)
    routes = [
        _route("/v1/chat/completions", "POST", ChatCompletions(gateway)),
        _route("/v1/chat/completions/input_tokens", "POST", ChatInputTokens(gateway)),
        _route("/v1/responses", "POST", Responses(gateway)),
        _route("/v1/responses/input_tokens", "POST", ResponsesInputTokens(gateway)),
        _route("/v1/completions", "POST", Completions(gateway)),
        _route("/tokenize", "POST", Tokenize(gateway)),
        _route("/detokenize", "POST", Detokenize(gateway)),
        _route("/v1/models", "GET", ListModels(gateway)),
        _route("/v1/models/{model:path}", "GET", RetrieveModel(gateway)),
        _route("/v1/capabilities", "GET", Capabilities(gateway)),
        _route("/v1/usage", "GET", ReadUsage(gateway)),
        _route("/", "POST", LegacyChat(gateway)),
        _route("/health/live", "GET", Live()),
        _route("/health/ready", "GET", Ready(gateway)),
    ]
    if settings.metrics != "off":
        routes.append(_route("/metrics", "GET", ReadMetrics(gateway)))
    app.router.routes.extend(routes)
    # The last one added is the outermost.
    app.add_middleware(Shortcut, routes=routes)
    app.add_middleware(KeyCheck, gateway=gateway)
    if settings.cors_origins:
        app.add_middleware(Preflight, origins=settings.cors_origins)
    app.add_middleware(HostCheck, allowed=settings.allowed_hosts)
    app.add_middleware(ConnectionLimit, gateway=gateway)
    app.add_middleware(Envelope, gateway=gateway)
    if settings.cors_origins:
        app.add_middleware(CrossOriginHeaders, origins=settings.cors_origins)
    if settings.trusted_proxies:
        app.add_middleware(TrustedProxies, networks=networks(settings.trusted_proxies))
    app.openapi = _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


class _Application(FastAPI):
    """FastAPI without the three layers that it puts around all middleware (errors as pages, its
    telemetry, its bound on bodies): `Envelope` and `routes.body` do that work, and what is left of
    it would cost each request, and each event of a stream, as much as all of ours together."""

    def build_middleware_stack(self) -> ASGIApp:
        stack: object = super().build_middleware_stack()
        ours: set[object] = {each.cls for each in self.user_middleware}
        while type(stack) not in ours:
            stack = getattr(stack, "app")  # noqa: B009  # so each layer names its inner one
        return cast(ASGIApp, stack)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


def _route(path: str, method: str, endpoint: ASGIApp) -> Route:
    route = Route(path, endpoint, methods=[method])
    # Starlette adds HEAD to every GET; the API has none.
    route.methods = {method}
    return route


async def _pass_on(_: Request, error: Exception) -> Response:
    raise error


def _openapi(app: FastAPI) -> Callable[[], dict[str, Any]]:
    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            modes = [(model, "validation") for model in _BODIES.values()]
            _, schemas = models_json_schema(
                modes,  # type: ignore[arg-type]  # a list of pairs; its literal is not inferred
                ref_template="#/components/schemas/{model}",
            )
            document["components"] = {"schemas": schemas.get("$defs", {})}
            for path, summary in _SUMMARIES.items():
                if path == "/metrics" and app.state.gateway.settings.metrics == "off":
                    continue
                document["paths"][path] = _operation(path, summary)
            app.openapi_schema = document
        # The first key may be made while the server runs.
        return _secured(app.openapi_schema) if app.state.gateway.keys.asks else app.openapi_schema

    return build


def _secured(document: dict[str, Any]) -> dict[str, Any]:
    schemes = {"key": {"type": "http", "scheme": "bearer"}}
    components = {**document["components"], "securitySchemes": schemes}
    return {**document, "components": components, "security": [{"key": []}]}


def _operation(path: str, summary: str) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "OK"}}}
    if "{model}" in path:
        operation["parameters"] = [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    body = _BODIES.get(path)
    if body is None:
        return {"get": operation}
    reference = {"$ref": f"#/components/schemas/{body.__name__}"}
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": reference}},
    }
    return {"post": operation}
