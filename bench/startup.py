"""How long a start takes and what an idle gateway weighs: `python -m bench.startup [--repeat 5]`.

Each start is a fresh `qwen-openai serve` with the embedded model on disk; the clock runs from the
spawn of the process to the last byte of its first answer (one token). The baseline of the same run
is the bare interpreter that imports the same web framework. Memory is the resident set of the
gateway process alone; the engine is its child.
"""

import argparse
import statistics
import subprocess
import sys
import time

import psutil

from bench.load import machine, request_bytes, start_gateway


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print(machine())
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
