"""What the pool needs of the network: one session for all upstreams, and a client for each.

Apart, and imported only where there are upstreams: a gateway without any need not load aiohttp.
"""

import aiohttp

from qwen_openai.engines.upstream.client import UpstreamClient
from qwen_openai.engines.upstream.deadlines import Timeouts
from qwen_openai.settings import Settings
from qwen_openai.upstreams import Upstream

# Seconds. An idle connection is closed by us before a server of uvicorn's usual 5 s would do it
# just as it is used again.
_KEEP_IDLE = 4.0
_KEEP_ADDRESSES = 30


class Connections:
    """The one session. Made in a running loop."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEEP_IDLE, ttl_dns_cache=_KEEP_ADDRESSES
            ),
            # Each client has deadlines of its own; one for the whole would end long answers.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    def client(self, upstream: Upstream, settings: Settings) -> UpstreamClient:
        """Return a client for one upstream, which need not be closed."""
        timeouts = Timeouts(
            connect=settings.connect_timeout,
            first_token=settings.first_token_timeout,
            token=settings.token_timeout,
            total=settings.total_timeout,
        )
        return UpstreamClient(upstream, self._session, timeouts)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()
