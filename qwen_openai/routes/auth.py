"""The right to come in: asked of every path but health, decided from the path and the key alone.

Deny by default: a path that is unknown, or oddly spelt, needs a key like any other. Whatever is
wrong with a key, the answer is the same.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from qwen_openai.errors import AuthenticationFailed, NotFound, PermissionDenied
from qwen_openai.gateway.keys import Key, KeyRing
from qwen_openai.routes.gateway import Gateway
from qwen_openai.routes.notes import note_key

OPEN_PATHS = frozenset({"/health/live", "/health/ready"})
METRICS_PATH = "/metrics"

_IN_QUERY = re.compile(rb"(?:^|&)(?:api[_-]?)?key=", re.IGNORECASE)
_OTHER_HEADERS = frozenset({b"x-api-key", b"api-key"})
_HOW = "Send it in the Authorization header: 'Authorization: Bearer KEY'."


class KeyCheck:
    """Asks for a Bearer key on every path but health; while there is no key, lets all in."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._check(scope, scope["path"])
        elif scope["type"] != "lifespan":
            # The API has no web sockets, so none needs a way to ask for its key.
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, path: str) -> None:
        """Raise AuthenticationFailed, or for the metrics PermissionDenied and NotFound."""
        keys, metrics = self._gateway.keys, self._gateway.settings.metrics
        is_metrics = path == METRICS_PATH
        if path in OPEN_PATHS or (is_metrics and metrics == "open"):
            return
        if keys.asks:
            key = _key_of(scope, keys)
            note_key(scope, key)
            if is_metrics and metrics == "master" and not key.is_master:
                raise PermissionDenied(
                    f"{path} is for the master key, the one in QWEN_OPENAI_API_KEY. The setting "
                    "metrics says who may read it."
                )
        if is_metrics and metrics == "off":
            raise NotFound(f"There is nothing at {path}: the setting metrics is off.")


def _key_of(scope: Scope, keys: KeyRing) -> Key:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if not given:
        raise AuthenticationFailed(_why_none(scope))
    # The scheme as the SDKs write it: one spelling is enough, and the fewer ways in the better.
    scheme, _, secret = given[0].partition(b" ")
    if len(given) != 1 or scheme != b"Bearer":
        raise AuthenticationFailed(
            "The Authorization header is not one 'Bearer KEY', spelt like that. " + _HOW
        )
    key = keys.find(secret)
    if key is None:
        raise AuthenticationFailed(
            "The API key is not valid: unknown, revoked or expired. Ask the operator of this "
            "server for one, who makes them with `qwen-openai keys create`, or sets "
            "QWEN_OPENAI_API_KEY."
        )
    return key


def _why_none(scope: Scope) -> str:
    if _IN_QUERY.search(scope["query_string"]):
        return f"A key in the URL is not accepted: URLs are logged. {_HOW}"
    for name, _ in scope["headers"]:
        if name in _OTHER_HEADERS:
            return f"A key in the {name.decode()} header is not accepted. {_HOW}"
    return f"No API key was given. {_HOW}"
