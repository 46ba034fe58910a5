"""Pages of other sites, where the settings name them: what a browser asks before and after.

The answers are Starlette's. Its middleware does two things that belong to two places: headers on
whatever is answered, errors included, and the answer to a preflight, which needs an id and a log
line like any other. Cookies are never allowed: the API has none, and keys are sent by hand.
"""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = ("GET", "POST")
_EXPOSED = (
    "x-request-id",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-gateway-upstream",
    "x-gateway-attempts",
    "x-gateway-queue-ms",
    "x-qwen-openai-ignored",
    "x-qwen-openai-changed",
)
# Seconds that a browser may keep the answer to a preflight.
_KEPT = 600


class _CrossOrigin(CORSMiddleware):
    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            # The SDKs send a dozen x-stainless-* headers, and more with each version.
            allow_headers=("*",),
            allow_credentials=False,
            # Origins that are named may reach an address inside the house from a page outside.
            allow_private_network=True,
            expose_headers=_EXPOSED,
            max_age=_KEPT,
        )


class CrossOriginHeaders(_CrossOrigin):
    """Lets pages of the named origins read every response, those that report errors too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await self.simple_response(scope, receive, send, request_headers=Headers(scope=scope))


class Preflight(_CrossOrigin):
    """Answers a true preflight of a named origin, which a browser sends without a key; any other
    OPTIONS is a request like the rest, and so is one that asks for what is not allowed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = self._allowed(scope)
        if allowed is None:
            await self.app(scope, receive, send)
        else:
            await Response(status_code=204, headers=allowed)(scope, receive, send)

    def _allowed(self, scope: Scope) -> dict[str, str] | None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            return None
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        asks = "access-control-request-method" in headers
        if origin is None or not asks or not self.is_allowed_origin(origin):
            return None
        answer = self.preflight_response(headers)
        if answer.status_code != 200:
            return None
        # Starlette's has a body of its own, in no shape of ours.
        return {
            name: value
            for name, value in answer.headers.items()
            if name == "vary" or name.startswith("access-control-")
        }
