"""What the door in front of upstreams costs: `python -m bench.gateway [--portkey FOLDER]`.

A mock upstream (`tests.upstream.mock`), the gateway on one core, load and mock on the other; each
measure is taken straight from the mock too, in the same run, and, where its npm package
`@portkey-ai/gateway` is installed in a folder, through Portkey's gateway on the gateway's core.
The contenders take turns, round by round; printed are medians and, in brackets, the spread.

requests/s of plain answers; what is added to the time to the first token with 10 streams open (64
pieces, 20 ms apart); SSE events/s of 20 streams flat out, each piece's number and checksum looked
at; and the memory of 1,000 streams that are open and silent.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psutil

from bench.load import (
    Stream,
    machine,
    pin,
    plain_rate,
    request_bytes,
    start_gateway,
    streams,
    wait_ready,
)
from tests.upstream.deltas import counted
from tests.upstream.process import Mock

_MODEL = "mock-model"
_MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Say hello in one short sentence, please."},
]
_PATH = "/v1/chat/completions"
_SETTLE_SECONDS = 2.0
_STREAM_SECONDS = 63 * 0.02


@dataclass
class Contender:
    """One way to the mock: itself, or a gateway in front of it. ``pids`` are its processes;
    ``streams`` is False for one that answers no stream, whose streams are not measured."""

    name: str
    port: int
    headers: tuple[tuple[str, str], ...] = ()
    pids: tuple[int, ...] = ()
    streams: bool = True
    figures: dict[str, list[float]] = field(default_factory=dict)

    def request(self, **body: object) -> bytes:
        """Return a chat request with these members, ready to be written."""
        raw = request_bytes(_PATH, {"model": _MODEL, "messages": _MESSAGES, **body})
        head, _, content = raw.partition(b"\r\n\r\n")
        more = "".join(f"\r\n{name}: {value}" for name, value in self.headers).encode()
        return head + more + b"\r\n\r\n" + content

    def note(self, name: str, value: float) -> None:
        """Keep one round's figure."""
        self.figures.setdefault(name, []).append(value)

    def memory(self) -> int:
        """Return the resident bytes of its processes."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids)


def _told(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def requests_rate(each: Contender, seconds: float) -> None:
    """Plain answers of 16 keep-alive clients."""
    request = each.request(max_tokens=16)
    each.note("requests/s", await plain_rate(each.port, request, clients=16, seconds=seconds))


async def first_tokens(each: Contender, rounds: int) -> None:
    """The time to the first piece, with 10 clients that stream without a pause, each begun at a
    time of its own; what all of them at once have to wait is told apart."""
    request = each.request(stream=True, max_tokens=64, messages=_told("mock:gap=0.02"))

    async def client(place: int) -> list[Stream]:
        await asyncio.sleep(place * _STREAM_SECONDS / 10)
        return [(await streams(each.port, [request]))[0] for _ in range(rounds)]

    clients = await asyncio.gather(*(client(place) for place in range(10)))
    found = [seen for seens in clients for seen in seens]
    firsts = [seen.first * 1000 for seen in found]
    each.note("TTFT p50, ms", _percentile(firsts, 0.5))
    each.note("TTFT p99, ms", _percentile(firsts, 0.99))
    # 63 gaps of 20 ms are the mock's; more is what the way adds up over a stream.
    each.note("stream, s", statistics.median(seen.last for seen in found))
    at_once = await streams(each.port, [request] * 10)
    each.note("10 at once, ms", _percentile([seen.first * 1000 for seen in at_once], 0.5))


async def events_rate(each: Contender, count: int) -> None:
    """SSE events of 20 streams flat out; every piece must be there, in order and whole."""
    tags = [f"tag{place}" for place in range(20)]
    asked = [each.request(stream=True, max_tokens=count, messages=_told(tag)) for tag in tags]
    begun = time.perf_counter()
    found = await streams(each.port, asked)
    seconds = time.perf_counter() - begun
    each.note("events/s", sum(seen.events for seen in found) / seconds)
    lost = sum(count - pieces(tag, bytes(seen.raw)) for tag, seen in zip(tags, found, strict=True))
    each.note("pieces lost", lost)


def pieces(tag: str, raw: bytes) -> int:
    """Return how many pieces of a stream arrived, in order and unharmed."""
    texts = []
    for line in raw.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in orjson.loads(line[6:]).get("choices", ()):
                texts.append(choice["delta"].get("content") or "")
    return counted(tag, "".join(texts))


async def idle_memory(each: Contender, mock: Mock, count: int) -> None:
    """What ``count`` streams take that have had their first pieces and then hear nothing."""
    before = each.memory()
    request = each.request(stream=True, max_tokens=8, messages=_told("mock:hang=token,at=2"))
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", each.port)
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        writers.append((reader, writer))
    await asyncio.sleep(_SETTLE_SECONDS)
    open_there = mock.control()["open"]
    if open_there != count:
        raise RuntimeError(f"{each.name}: {open_there} of {count} streams are open at the mock")
    each.note("KiB a stream", (each.memory() - before) / count / 1024)
    begun = time.perf_counter()
    for _, writer in writers:
        writer.close()
    while mock.control()["open"]:
        if time.perf_counter() - begun > 20:
            raise RuntimeError(f"{each.name}: streams stay open after their clients left")
        await asyncio.sleep(0.01)
    each.note("all closed, s", time.perf_counter() - begun)


@contextmanager
def ours(mock: Mock, core: int) -> Iterator[Contender]:
    """The gateway, with a key, limits, metrics and a ledger on: as one would run it."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.toml"
        config.write_text(
            'engine = "upstream"\ntokens_per_minute = 1000000000\n'
            f'database = "{folder}/gateway.db"\n'
            f'[[upstreams]]\nname = "mock"\nurl = "{mock.url}"\nmodels = ["{_MODEL}"]\n'
            "max_parallel = 2000\n"
        )
        environ = {"QWEN_OPENAI_API_KEY": "sk-bench"}
        process, port = start_gateway("--config", str(config), environ=environ)
        try:
            pin(process.pid, {core})
            key = (("authorization", "Bearer sk-bench"),)
            yield Contender("qwen-openai", port, key, (process.pid,))
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def portkey(folder: Path, mock: Mock, core: int) -> Iterator[Contender]:
    """Portkey's gateway out of its npm package, told to pass on to the mock."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    process = subprocess.Popen(
        ["node", str(script), f"--port={port}", "--headless"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"},
    )
    try:
        wait_ready(process, port, "/")
        pin(process.pid, {core})
        headers = (
            ("authorization", "Bearer sk-bench"),
            ("x-portkey-provider", "openai"),
            ("x-portkey-custom-host", mock.url),
        )
        yield Contender("Portkey", port, headers, (process.pid,))
    finally:
        process.terminate()
        process.wait(30)


async def measure(contenders: Sequence[Contender], mock: Mock, *, quick: bool) -> None:
    """Take every measure of every contender, in turns."""
    rounds = 1 if quick else 3
    for each in contenders:
        await plain_rate(
            each.port, each.request(max_tokens=16), clients=4, seconds=0.2 if quick else 1
        )
        try:
            await streams(each.port, [each.request(max_tokens=4, stream=True)])
        except RuntimeError as error:
            print(f"{each.name} answers no stream: {error}")
            each.streams = False
    streaming = [each for each in contenders if each.streams]
    for _ in range(rounds):
        for each in contenders:
            await requests_rate(each, 0.5 if quick else 5)
        for each in streaming:
            await first_tokens(each, 1 if quick else 10)
        for each in streaming:
            await events_rate(each, 200 if quick else 2000)
    for each in streaming[1:]:
        await idle_memory(each, mock, 100 if quick else 1000)


def show(contenders: Sequence[Contender]) -> None:
    """Print a table, and what each way adds to going straight to the mock."""
    names = list(dict.fromkeys(name for each in contenders for name in each.figures))
    print(f"{'':18}" + "".join(f"{each.name:>30}" for each in contenders))
    for name in names:
        print(f"{name:18}" + "".join(f"{_cell(each.figures.get(name)):>30}" for each in contenders))
    direct = contenders[0]
    for each in contenders[1:]:
        share = _median(direct, "requests/s") / _median(each, "requests/s")
        print(f"straight has {share:.1f} x the requests/s of {each.name}")
        if each.streams:
            added = _median(each, "TTFT p50, ms") - _median(direct, "TTFT p50, ms")
            print(f"{each.name} adds {added:.1f} ms to TTFT p50")
    if len(contenders) > 2:
        ratio = _median(contenders[1], "requests/s") / _median(contenders[2], "requests/s")
        print(f"{contenders[1].name} has {ratio:.1f} x the requests/s of {contenders[2].name}")


def _median(each: Contender, name: str) -> float:
    return statistics.median(each.figures[name])


def _cell(values: list[float] | None) -> str:
    if not values:
        return "-"
    low, middle, high = map(_shown, (min(values), statistics.median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portkey", type=Path, help="folder with node_modules/@portkey-ai/gateway")
    parser.add_argument("--quick", action="store_true", help="a look, no measurement")
    options = parser.parse_args()
    print(machine())
    print(f"Python {sys.version.split()[0]}, {_version_of_node()}")
    if os.getloadavg()[0] > 1:
        print("warning: the machine is busy; absolute figures will be low")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with ExitStack() as stack:
        mock = Mock("mock", "--model", _MODEL).start()
        stack.callback(mock.close)
        contenders = [
            Contender("straight", mock.port),
            stack.enter_context(ours(mock, cores[0])),
        ]
        if options.portkey is not None:
            contenders.append(stack.enter_context(portkey(options.portkey, mock, cores[0])))
        pin(mock.pid, {cores[-1]})
        pin(os.getpid(), {cores[-1]})
        asyncio.run(measure(contenders, mock, quick=options.quick))
        show(contenders)


def _version_of_node() -> str:
    try:
        found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return "no Node.js"
    return f"Node.js {re.sub('^v', '', found.stdout.strip())}"


if __name__ == "__main__":
    main()
