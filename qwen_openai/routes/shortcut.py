"""The way to an endpoint without the framework's: a look into a table, for paths without variables.

FastAPI's own way to a plain ASGI endpoint goes through nine functions that have nothing to do there
(an exit stack, two handlers of exceptions, the search through all routes), which cost a tenth of a
whole proxied request. What is not in the table, or is asked for by another method, goes that way.
"""

from collections.abc import Sequence

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


class Shortcut:
    """Innermost middleware: calls the endpoint of a known path and method itself."""

    def __init__(self, app: ASGIApp, routes: Sequence[Route]) -> None:
        self._app = app
        # An endpoint that is no function is an ASGI application: `Route.app` is it, unwrapped.
        self._routes = {
            (method, route.path): route
            for route in routes
            if "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = None
        if scope["type"] == "http":
            route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["endpoint"] = route.endpoint  # as the router leaves it there
        await route.app(scope, receive, send)
