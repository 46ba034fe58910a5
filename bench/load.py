"""A small load generator: keep-alive connections, requests encoded once, least work for each byte.

It must not be the limit of what it measures, so it parses no JSON while the clock runs.
"""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

# The first text of an answer; the chunk that names the role has an empty content or null.
_CONTENT = re.compile(rb'"content":"[^"]')
_LENGTH = re.compile(rb"content-length: (\d+)", re.I)


def request_bytes(path: str, body: object, *, key: str | None = None, close: bool = False) -> bytes:
    """One HTTP/1.1 request, ready to be written. ``close`` asks the server to close the connection
    after its answer, which is the end of a stream that sends no `[DONE]`."""
    content = orjson.dumps(body)
    head = [
        f"POST {path} HTTP/1.1",
        "host: bench",
        "content-type: application/json",
        f"content-length: {len(content)}",
    ]
    if key is not None:
        head.append(f"authorization: Bearer {key}")
    if close:
        head.append("connection: close")
    return "\r\n".join([*head, "", ""]).encode() + content


@dataclass
class Stream:
    """What one streaming answer looked like from outside. Times are seconds since the request."""

    first: float = 0.0
    last: float = 0.0
    events: int = 0
    raw: bytearray = field(default_factory=bytearray)

    def tokens(self) -> int:
        """Completion tokens by the usage chunk of the stream."""
        return self._counted(rb'"completion_tokens":(\d+)')

    def prompt_tokens(self) -> int:
        """Tokens of the prompt by the same chunk."""
        return self._counted(rb'"prompt_tokens":(\d+)')

    def _counted(self, pattern: bytes) -> int:
        found = re.findall(pattern, bytes(self.raw))
        return int(found[-1]) if found else 0


async def plain_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one whole response; its status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return int(head[9:12]), body


async def plain_rate(port: int, request: bytes, *, clients: int, seconds: float) -> float:
    """Requests a second of ``clients`` keep-alive connections, each one request at a time."""
    done = 0
    deadline = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < deadline:
            writer.write(request)
            status, body = await plain_answer(reader)
            if status != 200:
                raise RuntimeError(f"status {status}: {body[:300]!r}")
            done += 1
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - begun)


async def stream(port: int, request: bytes, *, keep: bool = True) -> Stream:
    """One streaming request on its own connection, read to the end."""
    seen = Stream()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if int(head[9:12]) != 200:
        raise RuntimeError(f"status {head[9:12]!r}: {(await reader.read(500))!r}")
    tail = b""
    while True:
        data = await reader.read(1 << 16)
        if not data:
            break
        now = time.perf_counter() - begun
        text = tail + data
        seen.events += text.count(b"data: ") - tail.count(b"data: ")
        if not seen.first and _CONTENT.search(text):
            seen.first = now
        seen.last = now
        if keep:
            seen.raw += data
        if b"data: [DONE]" in text:
            break
        tail = text[-64:]
    writer.close()
    return seen


async def streams(port: int, requests: Sequence[bytes], *, keep: bool = True) -> list[Stream]:
    """All requests at once."""
    return list(await asyncio.gather(*(stream(port, request, keep=keep) for request in requests)))


def pin(pid: int, cores: set[int]) -> None:
    """Tie a process to cores where the system can (Linux)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, cores)


def machine() -> str:
    """One line on what this ran on."""
    name = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        name = found[1] if found else name
    return f"{os.cpu_count()} cores ({name}), load {os.getloadavg()[0]:.1f}"


def start_gateway(
    *arguments: str, environ: dict[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start `qwen-openai serve` on a free port; the process and the port."""
    import socket
    import sys

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "qwen_openai", "serve", *arguments]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "QWEN_OPENAI_LOG_LEVEL": "warning", **(environ or {})},
    )
    wait_ready(process, port, "/health/ready")
    return process, port


def wait_ready(
    process: subprocess.Popen[bytes], port: int, path: str, *, seconds: float = 120
) -> float:
    """Wait for a 200 at ``path``; how long it took. Raises RuntimeError when the process ends."""
    import http.client

    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return time.perf_counter() - begun
        except OSError:
            pass
        time.sleep(0.02)
    raise RuntimeError("the server did not get ready")
