"""What the gateway itself costs: `python -m bench.overhead [--seconds 5] [--repeat 3]`.

The fake engine behind the real server process, which has one core to itself; the load generator
has the other. Printed: requests/s and SSE events/s of one worker, beside a bare ASGI application in
the same server software that answers bytes of the same size (what uvicorn can do at best).
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys

from bench.load import machine, pin, plain_rate, request_bytes, start_gateway, streams, wait_ready

_BODY = {
    "model": "fake",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Say hello in one short sentence, please."},
    ],
    "temperature": 0.7,
    "max_tokens": 16,
}
_LONG = {
    **_BODY,
    "messages": [{"role": "user", "content": "word " * 1000}],
    "max_tokens": 1000,
    "stream": True,
}


def start_bare() -> tuple[subprocess.Popen[bytes], int]:
    """The baseline: uvicorn with an application that only reads and writes."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.bare_app", str(port)])
    wait_ready(process, port, "/health/ready")
    return process, port


async def events_rate(port: int, request: bytes, clients: int, rounds: int) -> float:
    """SSE events a second of ``clients`` streams at once."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    events = 0
    for _ in range(rounds):
        events += sum(seen.events for seen in await streams(port, [request] * clients, keep=False))
    return events / (loop.time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    if os.getloadavg()[0] > 1:
        print("warning: the machine is busy; absolute figures will be low")
    gateway, port = start_gateway("--engine", "fake")
    bare, bare_port = start_bare()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    for process in (gateway, bare):
        pin(process.pid, {cores[0]})
    pin(os.getpid(), {cores[-1]})
    plain, long = (
        request_bytes("/v1/chat/completions", _BODY),
        request_bytes("/v1/chat/completions", _LONG),
    )
    figures: dict[str, list[float]] = {"ours": [], "bare": [], "ours sse": [], "bare sse": []}

    async def measure() -> None:
        for round_number in range(options.repeat + 1):
            row = {
                "ours": await plain_rate(port, plain, clients=16, seconds=options.seconds),
                "bare": await plain_rate(bare_port, plain, clients=16, seconds=options.seconds),
                "ours sse": await events_rate(port, long, 16, 4),
                "bare sse": await events_rate(bare_port, long, 16, 4),
            }
            if round_number:  # the first is the warm-up
                for name, value in row.items():
                    figures[name].append(value)

    try:
        asyncio.run(measure())
    finally:
        for process in (gateway, bare):
            process.kill()
            process.wait()
    for ours, base, what, aim in (
        ("ours", "bare", "requests/s", 2500),
        ("ours sse", "bare sse", "SSE events/s", 20000),
    ):
        value, best = statistics.median(figures[ours]), statistics.median(figures[base])
        low, high = min(figures[ours]), max(figures[ours])
        print(
            f"{what:13} gateway {value:8.0f} ({low:.0f} to {high:.0f}; aim {aim})"
            f"   bare server {best:8.0f}   ratio {value / best:.2f}"
        )


if __name__ == "__main__":
    main()
