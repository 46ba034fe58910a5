"""A gateway in the test's own loop in front of mocks, and what it must not keep of its requests."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.live import Live, live, until
from tests.upstream.process import Mock
from tests.upstream.proxy import Proxy

# Short enough for tests to see; what is promised of each is in its own test.
_QUICK: dict[str, object] = {
    "connect_timeout": 1,
    "first_token_timeout": 20,
    "token_timeout": 20,
    "probe_interval": 0.2,
}


def row(upstream: Mock | Proxy | str, name: str = "", **more: object) -> dict[str, object]:
    """A row of the setting `upstreams`."""
    url = upstream if isinstance(upstream, str) else upstream.url
    return {"name": name or getattr(upstream, "name", ""), "url": url, **more}


@asynccontextmanager
async def fronted(
    upstreams: Sequence[Mock | dict[str, object]], **settings: object
) -> AsyncIterator[Live]:
    """A gateway that has the model `m` from these upstreams."""
    rows = [row(each) if isinstance(each, Mock) else each for each in upstreams]
    values = {**_QUICK, "engine": "upstream", **settings, "upstreams": rows}
    async with live(None, lambda app: app, **values) as server:
        await until(lambda: "m" in server.gateway.model_names)
        yield server


@dataclass(frozen=True, slots=True)
class Kept:
    """What a gateway in this loop has open. ``files`` leaves out its connections to mocks, which it
    may keep for the next request, and which the mocks count."""

    tasks: int
    files: int
    running: int
    waiting: int
    in_flight: int


def kept(server: Live, mocks: Sequence[Mock]) -> Kept:
    """Count what is open now."""
    held = sum(int(mock.report()["connections"]) for mock in mocks)
    files = len(list(Path("/proc/self/fd").iterdir()))
    admissions = {id(served): served.service.admission for served in server.gateway.models.values()}
    return Kept(
        len(asyncio.all_tasks()),
        files - held,
        sum(admission.running for admission in admissions.values()),
        sum(admission.waiting for admission in admissions.values()),
        sum(state.in_flight for state in server.gateway.pool.states()),
    )


async def settles(server: Live, mocks: Sequence[Mock], before: Kept) -> None:
    """Fail unless the gateway soon has no more open than it had."""

    def fits() -> bool:
        now = kept(server, mocks)
        least = (now.running, now.waiting, now.in_flight) == (0, 0, 0)
        return least and now.tasks <= before.tasks and now.files <= before.files

    try:
        await until(fits)
    except TimeoutError:
        raise AssertionError(f"{before} became {kept(server, mocks)}") from None
