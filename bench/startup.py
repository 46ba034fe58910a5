"""How long a start takes and what an idle gateway weighs: `python -m bench.startup [--repeat 5]`.

First the gateway alone, in front of a mock upstream: from the spawn of the process to its first 200
on /health/live, polled every 5 ms. `--gateway` measures only that. Then each start is a fresh
`qwen-openai serve` with the embedded model on disk; the clock runs from the spawn of the process to
the last byte of its first answer (one token). The baseline of the same run is the bare interpreter
that imports the same web framework. Memory is the resident set of the gateway process alone; the
engine is its child.
"""

import argparse
import http.client
import statistics
import subprocess
import sys
import time

import psutil

from bench.load import machine, request_bytes, start_gateway
from tests.upstream.process import Mock, free_port, mocks


def first_answer(port: int, request: bytes) -> None:
    """Send one request and read its answer to the end."""
    import socket

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        data = b""
        while b'"total_tokens"' not in data:
            part = connection.recv(65536)
            if not part or b'"error"' in data:
                raise RuntimeError(f"no answer: {data[:300]!r}")
            data += part


def is_live(port: int) -> bool:
    """Whether /health/live answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def start_alone(mock: Mock) -> tuple[float, float]:
    """Seconds from spawn to the first 200 of a gateway without a model, and its idle MB."""
    port = free_port()
    command = [sys.executable, "-m", "qwen_openai", "serve", "--engine", "upstream"]
    command += ["--upstreams", mock.url, "--database", "off", "--port", str(port)]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not is_live(port):
            if process.poll() is not None:
                raise RuntimeError("the gateway did not start")
            time.sleep(0.005)
        seconds = time.perf_counter() - begun
        return seconds, psutil.Process(process.pid).memory_info().rss / 2**20
    finally:
        process.terminate()
        process.wait()


def measure_alone(repeat: int) -> None:
    """Print start and memory of the gateway alone."""
    with mocks("a") as (mock,):
        starts, memory = zip(*(start_alone(mock) for _ in range(repeat)), strict=True)
    spread = f"{min(starts):.2f} to {max(starts):.2f}"
    print(f"alone, to the first 200 {statistics.median(starts):5.2f} s ({spread}), aim under 1.5")
    print(f"alone, idle             {statistics.median(memory):.0f} MB resident (aim under 120)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--gateway", action="store_true", help="only the gateway alone")
    options = parser.parse_args()
    print(machine())
    measure_alone(options.repeat)
    if options.gateway:
        return
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    request = request_bytes("/v1/chat/completions", {**body, "model": "qwen2.5-coder-0.5b"})
    starts, answers, bare, memory = [], [], [], []
    for _ in range(options.repeat):
        begun = time.perf_counter()
        command = [sys.executable, "-c", "import fastapi, uvicorn, orjson, pydantic_settings"]
        subprocess.run(command, check=True)
        bare.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        process, port = start_gateway()
        starts.append(time.perf_counter() - begun)
        try:
            first_answer(port, request)
            answers.append(time.perf_counter() - begun)
            memory.append(psutil.Process(process.pid).memory_info().rss / 2**20)
        finally:
            process.terminate()
            process.wait()
    base = statistics.median(bare)
    for name, values in (("start to ready", starts), ("start to first answer", answers)):
        middle = statistics.median(values)
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:22} {middle:5.2f} s ({spread}), {middle / base:.1f} times the bare imports")
    print(f"gateway process        {statistics.median(memory):.0f} MB resident (aim under 120)")


if __name__ == "__main__":
    main()
