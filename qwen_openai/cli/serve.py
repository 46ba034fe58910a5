"""`qwen-openai serve`: settings, port, model, engine, panel, server, in this order, so that what
can fail at once fails before what takes long.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_openai.cli.database import count_keys, exposure_of
from qwen_openai.cli.flags import Flags, with_settings
from qwen_openai.engines.base import Engine
from qwen_openai.errors import StartupError
from qwen_openai.gateway.keys import KeyCount
from qwen_openai.settings import Loaded, Settings, check_upstreams

if TYPE_CHECKING:
    from qwen_openai.cli.loading import Loading
    from qwen_openai.reloading import Reload
    from qwen_openai.routes.gateway import Gateway

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
STUCK = 1

MakeEngine = Callable[[Settings, "Loading"], Engine | None]
"""Makes an engine that tells the Loading how far its start has come."""


@with_settings
def serve(
    flags: Flags,
    until_stdin_closes: Annotated[
        bool,
        typer.Option(
            "--until-stdin-closes",
            metavar=" ",
            help="Stop when standard input closes: for programs that start the server.",
        ),
    ] = False,
) -> None:
    """Serve a model over the OpenAI API and over POST /.

    The model is fetched first when it is not on disk. Every flag can also be an
    environment variable (--port 8000 is QWEN_OPENAI_PORT=8000) or a line of a
    config file (port = 8000). A GGUF file is run by llamacpp, on the processor; a
    directory of weights by transformers, on a card where there is one. With
    --upstreams it stands in front of other servers; a MODEL runs here beside them.

      qwen-openai serve
      qwen-openai serve qwen2.5-coder-1.5b --port 8000
      qwen-openai serve ./my.gguf --served-model-name gpt-4o-mini,qwen
      qwen-openai serve ./Qwen-7B-Chat --slots 16
      qwen-openai keys create anna && qwen-openai serve --host 0.0.0.0
      qwen-openai serve --upstreams http://10.0.0.7:8000,http://10.0.0.8:8000
      qwen-openai serve --config configs/gateway.toml

    SIGTERM or Ctrl-C lets the answers in flight finish; a second one stops now.
    SIGHUP, and a change of the config file, load limits and upstreams anew.
    """
    started = time.monotonic()
    loaded = flags.load()
    keys = count_keys(loaded.settings)
    loaded.settings.check_exposure(keys.good)
    check_upstreams(loaded.settings)
    _warn(loaded, keys)
    if until_stdin_closes:
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    run(loaded, started)


def run(loaded: Loaded, started: float, make: MakeEngine | None = None) -> None:
    """Serve until a signal. ``started`` is time.monotonic() at the start of the program; ``make``
    stands in for the engine that the settings ask for.

    Raises StartupError. Ends the process where the engine's thread does not end.
    """
    from qwen_openai import server
    from qwen_openai.cli.loading import Loading
    from qwen_openai.observe.logs import configure

    settings = loaded.settings
    configure(settings)
    _outlive_hangups()
    sock = server.bind(settings)
    try:
        progress = Loading(f"Loading {settings.model}")
        engine = (make or _create_engine)(settings, progress)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(loaded, engine, progress, sock, started))
        if engine is None:
            return
        _leave_at_once(STUCK, "A step of the model did not end; the process is ended without it.")
    except (typer.Exit, KeyboardInterrupt) as error:
        _leave_at_once(error.exit_code if isinstance(error, typer.Exit) else INTERRUPTED)
        raise
    except StartupError as error:
        _leave_at_once(STUCK, f"{error.message} {error.fix}")
        raise
    finally:
        sock.close()


def _outlive_hangups() -> None:
    """Let a SIGHUP that comes before the server can reload be without effect, not the end; where
    there is a terminal, closing it still ends the program."""
    if not hasattr(signal, "SIGHUP") or sys.stdin.isatty():
        return
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup has it ignored, and so it stays
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)


def _leave_at_once(code: int, reason: str = "") -> None:
    """End the process here where the engine's thread still loads or computes: nothing can stop it,
    and torch's own code in it would crash the interpreter as that ends in its orderly way."""
    from qwen_openai.engines.qwen_chat.worker import THREAD_NAME
    from qwen_openai.engines.torch_model.threads import still_running

    if still_running() or any(thread.name == THREAD_NAME for thread in threading.enumerate()):
        # Nobody may read either any more, and that is no reason to stay.
        with contextlib.suppress(OSError):
            if reason:
                _note(reason)
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _create_engine(settings: Settings, progress: "Loading") -> Engine | None:
    if not settings.runs_here:
        return None
    from qwen_openai.cli.pull import obtain, pull_progress
    from qwen_openai.engines.factory import create_engine, made_ready, notes

    if settings.engine == "fake":
        return create_engine(settings, None)
    files = obtain(settings)
    with pull_progress() as drawn:  # not around the pull, which draws its own
        files = made_ready(settings, files, drawn)
    for sentence in notes(settings, files):
        typer.echo(sentence, err=True)
    return create_engine(settings, files, progress.report)


async def _serve(
    loaded: Loaded,
    engine: Engine | None,
    progress: "Loading",
    sock: socket.socket,
    started: float,
) -> None:
    from rich.console import Console

    from qwen_openai import server
    from qwen_openai.cli import panel

    settings = loaded.settings

    def on_ready(port: int, gateway: "Gateway") -> None:
        info = None if engine is None else engine.info()
        seconds = time.monotonic() - started
        states = gateway.pool.states() if settings.upstreams else ()
        names, keys = gateway.model_names, gateway.keys.count()
        ready = panel.Ready(settings, info, port, seconds, names, states, keys)
        panel.show(Console(), ready)
        sys.stdout.flush()

    try:
        preloading = asyncio.create_task(server.preload())
        if engine is not None:
            await _start(
                engine, contextlib.nullcontext() if settings.engine == "fake" else progress
            )
        await preloading
        await server.serve(settings, engine, sock=sock, on_ready=on_ready, reload=_reload(loaded))
    finally:
        if engine is not None:
            await engine.aclose()


def _reload(loaded: Loaded) -> "Reload | None":
    """What reads the config file again; None where there is none."""
    from qwen_openai.reloading import Reload

    if loaded.config is None:
        return None

    def load() -> Settings:
        settings = loaded.again().settings
        check_upstreams(settings)
        return settings

    return Reload(loaded.config, load)


async def _start(engine: Engine, progress: "contextlib.nullcontext[None] | Loading") -> None:
    """Load the model; a SIGTERM meanwhile ends the program as Ctrl-C does."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(engine.start())
    terminated = asyncio.Event()

    def terminate() -> None:
        terminated.set()
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        with progress:
            await task
    except asyncio.CancelledError:
        if terminated.is_set():
            raise typer.Exit(TERMINATED) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def _warn(loaded: Loaded, keys: KeyCount) -> None:
    settings, origin = loaded.settings, loaded.origin
    if origin["api_key"].startswith("--"):
        _note(
            "A key given as a flag can be read by every user of this machine in the process list;"
            " QWEN_OPENAI_API_KEY keeps it private."
        )
    if not (settings.api_key or keys.made or settings.is_loopback()):
        _note("Anybody who reaches this address may use the server: no key is asked for.")
    if exposure := exposure_of(settings):
        _note(exposure)


def _note(sentence: str) -> None:
    typer.secho("Warning: ", err=True, fg="yellow", bold=True, nl=False)
    typer.secho(sentence, err=True)


def _stop_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
