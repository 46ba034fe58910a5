"""The right to come in: asked of every path but health, decided from the path and the key alone."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from qwen_openai.errors import AuthenticationFailed
from qwen_openai.gateway.keys import KeyRing
from qwen_openai.routes.notes import note_key

OPEN_PATHS = frozenset({"/health/live", "/health/ready"})


class KeyCheck:
    """Asks for a Bearer key on every path but health; while there is no key, lets all in."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys.asks and scope["path"] not in OPEN_PATHS:
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            in_query = re.search(rb"(?:^|&)(?:api_?)?key=", scope["query_string"])
            raise AuthenticationFailed(
                "A key in the URL is not accepted. Send it in the Authorization header: "
                "'Authorization: Bearer KEY'."
                if in_query
                else "No API key was given. Send it in the Authorization header: "
                "'Authorization: Bearer KEY'."
            )
        scheme, _, secret = given[0].partition(b" ")
        key = self._keys.find(secret)
        if len(given) != 1 or scheme != b"Bearer" or key is None:
            raise AuthenticationFailed(
                "The API key is not valid. Send the key that this server was started with "
                "(QWEN_OPENAI_API_KEY) as 'Authorization: Bearer KEY'."
            )
        note_key(scope, key)
