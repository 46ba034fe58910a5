"""The engine process: `python -m qwen_openai.engines.llamacpp.child FD`.

Runs llama.cpp's server engine inside xllamacpp and speaks `frames` on the inherited socket FD. It
passes request bodies and answer chunks through unread. It knows nothing of jobs, templates or the
gateway, and imports only the standard library before the model, so that it starts in milliseconds.
It ends when its socket closes.
"""

import contextlib
import ctypes
import importlib
import json
import os
import platform
import queue
import resource
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, Protocol, TypedDict

from qwen_openai.engines.llamacpp.frames import Decoder, Frame, Kind, encode

_RECEIVE = 2**20
_PR_SET_PDEATHSIG = 1


class Config(TypedDict):
    """The payload of the LOAD frame. ``heartbeat`` is seconds between two signs of life."""

    weights: str
    context: int
    slots: int
    threads: int
    batch_tokens: int
    prompt_cache: bool
    prompt_cache_mib: int
    heartbeat: float


class Failure(TypedDict):
    """The payload of the FAILED frame."""

    reason: str
    detail: str


class Completions(Protocol):
    """What the child uses of `xllamacpp.Server`.

    Given the body as a JSON string, the callback gets JSON strings; it returns True to cancel.
    """

    def handle_completions(self, body: str, callback: Callable[[str], bool]) -> object: ...


class Channel:
    """Frames over the socket, sent from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = Decoder()
        self._lock = threading.Lock()

    def send(self, kind: Kind, request: int = 0, payload: bytes = b"") -> None:
        """Send one frame, whole. Ends the process when nobody is there to read it."""
        data = encode(kind, request, payload)
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError:
            leave()

    def receive(self) -> list[Frame]:
        """Wait for frames. Ends the process when the gateway is gone."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except OSError:
                data = b""
            if not data:
                leave()
            if frames := self._decoder.feed(data):
                return frames


def leave(code: int = 0) -> NoReturn:
    """End now: no destructor of native code may hold the memory of a process nobody needs."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


class Task:
    """One request. ``cancelled`` is set by the reader and read by the worker."""

    __slots__ = ("body", "cancelled", "number")

    def __init__(self, number: int, body: str) -> None:
        self.number = number
        self.body = body
        self.cancelled = False


class Workers:
    """One thread a slot; each runs one request at a time."""

    def __init__(self, server: Completions, channel: Channel, slots: int) -> None:
        self._server = server
        self._channel = channel
        self._waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._tasks: dict[int, Task] = {}
        for _ in range(slots):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, frame: Frame) -> None:
        """Queue a request; it begins when a thread is free."""
        task = Task(frame.request, frame.payload.decode())
        self._tasks[task.number] = task
        self._waiting.put(task)

    def cancel(self, number: int) -> None:
        """Stop a request at its next token or batch, or drop it; an unknown one is over already."""
        if task := self._tasks.get(number):
            task.cancelled = True

    def _work(self) -> None:
        while True:
            task = self._waiting.get()
            failure = "" if task.cancelled else self._run(task)
            del self._tasks[task.number]
            self._channel.send(Kind.END, task.number, failure.encode())

    def _run(self, task: Task) -> str:
        """Answer one request; return why it broke off, or nothing."""

        def deliver(chunk: str) -> bool:
            if not task.cancelled:
                self._channel.send(Kind.CHUNK, task.number, chunk.encode())
            return task.cancelled

        try:
            self._server.handle_completions(task.body, deliver)
        except Exception as error:  # noqa: BLE001  # the edge to native code; the gateway answers it
            return f"{type(error).__name__}: {error}"
        return ""


class Parameters(Protocol):
    """What callers may still change of `xllamacpp.CommonParams`."""

    api_keys: list[str]
    n_threads_http: int


def parameters(config: Config) -> Parameters:
    """xllamacpp's parameters for a configuration. Raises ImportError."""
    # No type stubs are published; the names were checked against the release that is pinned.
    params = importlib.import_module("xllamacpp").CommonParams()
    params.model.path = config["weights"]
    params.n_parallel = config["slots"]
    params.n_ctx = config["context"] * config["slots"]
    params.n_batch = params.n_ubatch = config["batch_tokens"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
    params.cache_prompt = config["prompt_cache"]
    params.cache_ram_mib = config["prompt_cache_mib"] if config["prompt_cache"] else 0
    # A slot's share of the context is its own, and the model is taken as it is told, not fitted.
    params.kv_unified = False
    params.ctx_shift = False
    params.fit_params = False
    params.warmup = False
    # Errors only; they end up in the sentence that the operator reads.
    params.verbosity = 1
    # xllamacpp always opens an HTTP port. Nobody uses this one, and nobody else can.
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [secrets.token_hex(32)]
    params.n_threads_http = 1
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    made: Parameters = params
    return made


def load(config: Config) -> Completions:
    """Load the model. Raises ImportError, RuntimeError, MemoryError as xllamacpp does."""
    params = parameters(config)
    server: Completions = importlib.import_module("xllamacpp").Server(params)
    return server


def lacks_avx2() -> bool:
    """Whether this is an x86 Linux machine without AVX2, where the wheel dies of SIGILL."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            flags = next((line for line in info if line.startswith("flags")), "avx2")
    except OSError:
        return False
    return "avx2" not in flags.split()


def _die_with_the_gateway() -> None:
    """Have Linux kill us when the gateway goes: no thread of ours can look during a load."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _beat(channel: Channel, seconds: float) -> None:
    pause = threading.Event()
    while not pause.wait(seconds):
        channel.send(Kind.HEARTBEAT)


def _load_or_leave(config: Config, channel: Channel) -> Completions:
    failure: Failure
    if lacks_avx2():
        failure = {"reason": "cpu", "detail": "no AVX2"}
    else:
        try:
            return load(config)
        except ImportError as error:
            failure = {"reason": "library", "detail": str(error)}
        except MemoryError as error:
            failure = {"reason": "memory", "detail": str(error)}
        except Exception as error:  # noqa: BLE001  # the edge to native code; the gateway explains it
            failure = {"reason": "model", "detail": str(error)}
    channel.send(Kind.FAILED, payload=json.dumps(failure).encode())
    leave(1)


def main() -> None:
    """Serve one gateway until it goes away."""
    # Ctrl-C on the terminal is for the gateway, which drains first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Writing gigabytes of core would hide a death from the gateway for as long as it takes.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _die_with_the_gateway()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    first = channel.receive()[0]
    config: Config = json.loads(first.payload)
    threading.Thread(target=_beat, args=(channel, config["heartbeat"]), daemon=True).start()
    workers = Workers(_load_or_leave(config, channel), channel, config["slots"])
    channel.send(Kind.READY)
    while True:
        for frame in channel.receive():
            if frame.kind is Kind.SUBMIT:
                workers.submit(frame)
            elif frame.kind is Kind.CANCEL:
                workers.cancel(frame.request)


if __name__ == "__main__":
    main()
