"""Who the client is where a reverse proxy stands between: taken from its headers, from known
proxies alone. The outermost layer, so that everything further in sees the client.
"""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from qwen_openai.settings.checks import Network

_SCHEMES = frozenset({b"http", b"https"})


class TrustedProxies:
    """Sets the scope's client and scheme from X-Forwarded-For and X-Forwarded-Proto where the peer
    is one of ``networks``; headers that anybody else sends mean nothing."""

    def __init__(self, app: ASGIApp, networks: Collection[Network]) -> None:
        self._app = app
        self._networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client") if scope["type"] == "http" else None
        if peer is not None and self._is_proxy(_address(peer[0])):
            scope = self._as_forwarded(scope)
        await self._app(scope, receive, send)

    def _is_proxy(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )

    def _as_forwarded(self, scope: Scope) -> Scope:
        """Each proxy appends whom it heard, so the list is read from its end: the first one that is
        no proxy of ours is the client. What stands before that, anybody may have written."""
        forwarded: list[bytes] = []
        protocols: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                forwarded += value.split(b",")
            elif name == b"x-forwarded-proto":
                protocols += value.split(b",")
        changed = dict(scope)
        for part in reversed(forwarded):
            address = _address(part.decode("latin-1").strip())
            if address is None:
                break
            changed["client"] = (str(address), 0)
            if not self._is_proxy(address):
                break
        if protocols and protocols[-1].strip().lower() in _SCHEMES:
            changed["scheme"] = protocols[-1].strip().lower().decode()
        return changed


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address, also as 192.0.2.1:5000 and [2001:db8::1]:5000, which some proxies write."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # An IPv4 peer of a socket that listens on both.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
