"""Serving: the socket, uvicorn, signals and the drain. Nothing of requests or models.

The first SIGTERM or SIGINT stops new work and lets streams finish within `drain_timeout`; a second
one stops at once. Then the gateway writes what is left, and the engine is closed last. SIGHUP and a
changed config file load the settings again (`reloading`). Under `on_engine_loss` "exit", an engine
that only a new process can mend does what a signal does.
"""

import asyncio
import contextlib
import errno
import gc
import importlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import psutil
import structlog
import uvicorn

from qwen_openai.engines.base import Engine
from qwen_openai.errors import StartupError
from qwen_openai.http_protocol import limited
from qwen_openai.reloading import Reload, Reloader, Terminal
from qwen_openai.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from qwen_openai.routes.gateway import Gateway

# Seconds between two looks at the engine.
_LOOK_EVERY = 0.25
# New objects between two collections; Python's own 700 are those of two requests.
_COLLECT_AFTER = 10_000
# Seconds that closing the gateway may take after the drain, and after a second signal.
_CLOSING, _CLOSING_NOW = 3.0, 0.4
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
OnReady = Callable[[int, "Gateway"], None]


def bind(settings: Settings) -> socket.socket:
    """Take the address that `serve` will listen on.

    Raises StartupError that names the process holding the port where it can be seen.
    """
    host, port = settings.host, settings.port
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except socket.gaierror:
        raise StartupError(
            f"The host {host!r} is not an address of this machine.",
            fix="Use --host 127.0.0.1 for this machine only, or --host 0.0.0.0 for all interfaces.",
        ) from None
    # With the protocol named: without it, asyncio does not turn Nagle's waiting off.
    sock = socket.socket(address[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address[4])
    except OSError as error:
        sock.close()
        raise _explain(error, host, port) from None
    # It does not listen yet: while the model loads, clients are refused and do not hang.
    sock.setblocking(False)
    return sock


def _explain(error: OSError, host: str, port: int) -> StartupError:
    if error.errno == errno.EADDRINUSE:
        holder = _holder(port)
        by = f" by {holder}" if holder else ""
        return StartupError(
            f"Port {port} on {host} is in use{by}.",
            fix=f"Stop it, or choose another port: --port {port + 1 if port < 65535 else 6007}.",
        )
    if error.errno == errno.EACCES:
        return StartupError(
            f"Port {port} needs more rights than this user has.", fix="Use a port above 1023."
        )
    return StartupError(
        f"The address {host}:{port} cannot be used: {error.strerror}.",
        fix="Use --host 127.0.0.1, or an address of this machine.",
    )


def _holder(port: int) -> str | None:
    """Process id and command line of whoever listens on ``port``, where we may see it."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            listening = connection.status == psutil.CONN_LISTEN
            if listening and connection.laddr and connection.laddr.port == port and connection.pid:
                command = " ".join(psutil.Process(connection.pid).cmdline())[:120]
                return f"process {connection.pid} ({command})"
    return None


async def preload() -> None:
    """Import the web framework in a thread, so that `serve` need not wait for it."""
    await asyncio.to_thread(importlib.import_module, "qwen_openai.app")


async def serve(
    settings: Settings,
    engine: Engine | None,
    *,
    sock: socket.socket | None = None,
    on_ready: OnReady | None = None,
    reload: Reload | None = None,
) -> None:
    """Serve a started engine, upstreams or both until a signal; close the engine at the end.

    ``on_ready`` is called with the port and the gateway once connections are accepted; ``reload``
    reads the settings again where there is a config file. Raises StartupError when the gateway
    cannot start, or the engine is lost and `on_engine_loss` says to exit.
    """
    # Not at the top: a port that is taken must fail before the web framework has been imported,
    # and `preload` does it while the model loads.
    from qwen_openai.app import create_app

    sock = sock or bind(settings)
    app = create_app(settings, engine)
    gateway: Gateway = app.state.gateway
    server = Server(settings, app, gateway, reload)

    def ready(port: int) -> None:
        _spare_collector()
        if on_ready is not None:
            on_ready(port, gateway)

    try:
        await server.serve_on(sock, ready)
    finally:
        if engine is not None:
            await engine.aclose()
    if server.lost is not None:
        raise StartupError(
            f"The engine is lost, and the server has stopped: {server.lost}",
            fix="Start it again; under docker or systemd that happens by itself.",
        )


def _spare_collector() -> None:
    """Let the garbage collector look less often, and not at what is there to stay: modules, models
    of wire bodies, the engine. What requests make is freed by its reference counts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


class Server(uvicorn.Server):
    """uvicorn with our signals: the second one of any kind ends the drain. ``lost`` is why the
    engine brought the server down, where it did."""

    def __init__(
        self,
        settings: Settings,
        app: "ASGIApp",
        gateway: "Gateway",
        reload: Reload | None = None,
    ) -> None:
        self.lost: str | None = None
        self._gateway = gateway
        self._reloader = Reloader(gateway, reload)
        self._terminal = Terminal()
        self._starting: asyncio.Task[None] | None = None
        self._told = asyncio.Event()
        self._exits = settings.on_engine_loss == "exit"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_ready: Callable[[int], None] | None = None
        self._host, self._port = settings.host, settings.port
        config = uvicorn.Config(
            app,
            http=limited(settings.header_timeout, settings.write_timeout),
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=None,
            backlog=1024,
        )
        # uvicorn's annotations are int; fractions of a second work, and matter to tests.
        config.timeout_keep_alive = settings.keep_alive  # type: ignore[assignment]
        config.timeout_graceful_shutdown = settings.drain_timeout  # type: ignore[assignment]
        super().__init__(config)
        gateway.connections = self.server_state.connections

    async def serve_on(self, sock: socket.socket, on_ready: Callable[[int], None] | None) -> None:
        """Serve on a bound socket until told to stop."""
        self._loop = asyncio.get_running_loop()
        self._host, self._port = sock.getsockname()[:2]
        self._on_ready = on_ready
        with self.capture_signals():
            # It listens when this is done, so the first request finds keys and upstreams.
            self._starting = asyncio.create_task(self._gateway.start())
            tasks = [self._starting]
            try:
                await asyncio.wait(tasks)
                if not self._starting.cancelled():
                    self._starting.result()
                    looks = (self._look_at_engine(), self._reloader.watch())
                    tasks += [asyncio.create_task(look) for look in looks]
                    await self._serve([sock])
            finally:
                for task in tasks:
                    task.cancel()
                await self._end_tasks()
                await self._close_gateway()

    async def _close_gateway(self) -> None:
        """Let the ledger be written and connections be closed, for a bounded time."""
        closing = asyncio.ensure_future(self._gateway.aclose())
        loop = asyncio.get_running_loop()
        end = loop.time() + _CLOSING
        while not closing.done() and loop.time() < end:
            if self.force_exit:
                end = min(end, loop.time() + _CLOSING_NOW)
                await asyncio.wait([closing], timeout=_CLOSING_NOW)
            else:
                await asyncio.wait([closing], timeout=0.1)
        if closing.cancel():
            structlog.get_logger("qwen_openai.server").warning(
                "closing took too long and was given up"
            )
            await asyncio.wait([closing], timeout=0.1)
        else:
            await closing

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting, then say so. Raises StartupError when somebody else was faster."""
        try:
            await super().startup(sockets)
        except OSError as error:
            raise _explain(error, str(self._host), self._port) from None
        if self._on_ready is not None and sockets:
            self._on_ready(int(sockets[0].getsockname()[1]))

    async def main_loop(self) -> None:
        """Tick as uvicorn's own does, ten times a second, but notice at once that it is to stop."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks = (ticks + 1) % 864_000  # a day, as there
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._told.wait()

    def stop(self) -> None:
        """What a signal does: the first call begins the drain, the second ends it."""
        if self.should_exit:
            self.force_exit = True
            self._cancel_tasks()
        self.should_exit = True
        self._told.set()
        self._gateway.drain()
        if self._starting is not None:
            self._starting.cancel()

    async def _look_at_engine(self) -> None:
        """Stop when the engine is lost; it has told its readers."""
        while self._exits and not self.should_exit:
            health = self._gateway.health()
            if health.lost:
                self.lost = health.detail
                self.stop()
            await asyncio.sleep(_LOOK_EVERY)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A signal comes between any two instructions; the loop calls when nothing is half done.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.stop)

    def _handle_hangup(self, sig: int, frame: FrameType | None) -> None:
        # A terminal that was closed says so by the same signal, and nobody is left to stop us.
        action = self.stop if self._terminal.is_gone() else self._reloader.ask
        if self._loop is not None:
            self._loop.call_soon_threadsafe(action)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Unlike uvicorn's, it does not raise the signal again afterwards: a finished drain is
        # a success, and the engine is still to be closed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        if hasattr(signal, "SIGHUP"):  # not on Windows
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle_hangup)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _cancel_tasks(self) -> set[asyncio.Task[None]]:
        tasks = set(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def _end_tasks(self) -> None:
        """End requests that outlived the drain; each gets a moment to tell its client."""
        tasks = self._cancel_tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=0.5)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.close()
