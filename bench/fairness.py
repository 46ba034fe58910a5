"""One key floods, another one is calm: `python -m bench.fairness [--seconds 30] [--times 10]`.

The real server, in a process of its own, before a fake engine whose answers take a known time; the
flood sends at a fixed rate, so many times what the slots can do, and never waits for its answers.
Printed: the calm key's p99 alone and beside the flood, what is done a second beside the peak, and
how soon refusals come.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

from bench.load import machine, pin, plain_answer, request_bytes, wait_ready

_BODY = {"model": "fake", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 64}
_CALM, _FLOOD = "calm", "flood"


@dataclass
class Seen:
    """Seconds until the answer, of the requests that were done and of those that were refused."""

    done: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)


def p99(times: list[float]) -> float:
    """The time that one in a hundred exceeds; nan where there is none."""
    return sorted(times)[min(int(len(times) * 0.99), len(times) - 1)] if times else float("nan")


class Caller:
    """One key's requests, on as many connections as are needed at once."""

    def __init__(self, port: int, key: str) -> None:
        self.seen = Seen()
        self._port = port
        self._request = request_bytes("/v1/chat/completions", _BODY, key=key)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one(self) -> None:
        """One request, timed from when it is written."""
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        begun = time.perf_counter()
        writer.write(self._request)
        status, _ = await plain_answer(reader)
        took = time.perf_counter() - begun
        if status not in (200, 503):
            raise RuntimeError(f"status {status}")
        (self.seen.done if status == 200 else self.seen.refused).append(took)
        self._idle.append((reader, writer))

    async def at_rate(self, rate: float, seconds: float) -> None:
        """So many a second, whatever becomes of them; returns when all have been answered."""
        begun = time.perf_counter()
        tasks: set[asyncio.Task[None]] = set()
        for number in range(int(rate * seconds)):
            wait = begun + number / rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def steady(self, clients: int, seconds: float) -> None:
        """So many at once, each sending again when it has its answer."""
        end = time.perf_counter() + seconds

        async def client() -> None:
            while time.perf_counter() < end:
                await self.one()

        await asyncio.gather(*(client() for _ in range(clients)))


def start(options: argparse.Namespace) -> tuple[subprocess.Popen[bytes], int]:
    """The server in a process of its own, on the first core, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    numbers = [str(each) for each in (port, options.slots, options.service, options.spread)]
    command = [sys.executable, "-m", "bench.fair_server", *numbers, _CALM, _FLOOD]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    pin(process.pid, {0})
    wait_ready(process, port, "/health/ready")
    return process, port


async def measure(port: int, options: argparse.Namespace) -> None:
    capacity = options.slots / options.service
    calm_rate = capacity * options.calm
    alone, beside = Caller(port, _CALM), Caller(port, _CALM)
    peak, flood = Caller(port, _FLOOD), Caller(port, _FLOOD)
    await alone.at_rate(calm_rate, options.seconds)
    begun = time.perf_counter()
    await peak.steady(options.slots * 2, options.seconds)
    most = len(peak.seen.done) / (time.perf_counter() - begun)
    flooding = asyncio.create_task(flood.at_rate(capacity * options.times, options.seconds))
    # The flood is there before the calm one comes.
    await asyncio.sleep(options.service)
    before, begun = len(flood.seen.done), time.perf_counter()
    await beside.at_rate(calm_rate, options.seconds - 2 * options.service)
    took = time.perf_counter() - begun
    good = (len(flood.seen.done) - before + len(beside.seen.done)) / took
    await flooding
    one, two = p99(alone.seen.done), p99(beside.seen.done)
    print(f"calm p99 {one * 1000:.0f} ms alone, {two * 1000:.0f} ms beside: {two / one:.2f} times")
    print(f"calm refused {len(beside.seen.refused)} of {len(beside.seen.done)}")
    print(f"done {most:.1f}/s at the peak, {good:.1f}/s in the flood: {good / most:.3f} of it")
    refused = flood.seen.refused
    half = sorted(refused)[len(refused) // 2] if refused else float("nan")
    print(f"refused {len(refused)}, p50 {half * 1000:.1f} ms, p99 {p99(refused) * 1000:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--service", type=float, default=0.2, help="seconds that an answer takes")
    parser.add_argument("--spread", type=float, default=0.2, help="share that it varies by")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--times", type=float, default=10, help="the flood, in capacities")
    parser.add_argument("--calm", type=float, default=0.1, help="the calm key, in capacities")
    options = parser.parse_args()
    print(machine())
    process, port = start(options)
    pin(os.getpid(), {1})
    try:
        asyncio.run(measure(port, options))
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
