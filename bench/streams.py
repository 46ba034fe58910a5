"""Tokens a second and TTFT through the gateway beside llama.cpp's own HTTP port, in one run.

    python -m bench.streams [--streams 1,4,8,16] [--tokens 64] [--repeat 3]

Both serve the embedded model with the same slots, context, threads, batch and waiting policy, the
prompt cache off. Both are asked for the same chat, greedy, as a stream; they take turns, so drift
of a shared machine hits both. Printed: medians, and the ratio of gateway to llama.cpp by rounds.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.load import Stream, machine, request_bytes, start_gateway, streams
from qwen_openai.engines.llamacpp.process import child_environment
from qwen_openai.engines.machine import measure
from qwen_openai.models.layout import default_home
from qwen_openai.models.store import locate

_MODEL = "qwen2.5-coder-0.5b"
_CONTEXT = 2048
_BATCH = 128
_SAMPLING = {
    "temperature": 0,
    "top_p": 1,
    "top_k": 0,
    "min_p": 0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
}
_LLAMA = {"repeat_penalty": 1.0, "cache_prompt": False, "samplers": ["top_k", "temperature"]}


def _body(number: int, tokens: int) -> dict[str, object]:
    text = f"Write a long story about the number {number + 1000}. Do not stop before page ten."
    return {
        "model": _MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": text},
        ],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _start_llama(slots: int) -> tuple[subprocess.Popen[str], int]:
    home = os.environ.get("QWEN_OPENAI_HOME")
    files = locate(_MODEL, home=Path(home) if home else default_home())
    if files is None:
        raise SystemExit(f"The model is not on disk. Run `qwen-openai pull {_MODEL}` first.")
    config = {
        "weights": str(files.weights),
        "context": _CONTEXT,
        "slots": slots,
        "threads": measure().cores,
        "batch_tokens": _BATCH,
        "prompt_cache": False,
        "prompt_cache_mib": 0,
        "heartbeat": 1.0,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.llama_port", json.dumps(config)],
        env={**child_environment(os.environ), "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if process.stdout is None:
        raise RuntimeError("no output to read the port from")
    return process, int(process.stdout.readline())


async def _round(port: int, requests: list[bytes]) -> tuple[float, float]:
    """Aggregate tokens a second, and the mean time to the first token."""
    begun = time.perf_counter()
    seen: list[Stream] = await streams(port, requests)
    elapsed = time.perf_counter() - begun
    return sum(one.tokens() for one in seen) / elapsed, statistics.mean(one.first for one in seen)


async def _measure(ports: dict[str, int], options: argparse.Namespace) -> None:
    for count in (int(text) for text in options.streams.split(",")):
        rates: dict[str, list[float]] = {name: [] for name in ports}
        firsts: dict[str, list[float]] = {name: [] for name in ports}
        for round_number in range(options.repeat + 1):
            order = list(ports) if round_number % 2 else list(reversed(ports))
            for name in order:
                extra = _SAMPLING if name == "gateway" else {**_SAMPLING, **_LLAMA}
                requests = [
                    request_bytes(
                        "/v1/chat/completions",
                        {**_body(number, options.tokens), **extra},
                        key=None if name == "gateway" else "bench",
                    )
                    for number in range(count)
                ]
                rate, first = await _round(ports[name], requests)
                if round_number:  # the first is the warm-up
                    rates[name].append(rate)
                    firsts[name].append(first)
        _print(count, rates, firsts)


def _print(count: int, rates: dict[str, list[float]], firsts: dict[str, list[float]]) -> None:
    ours, theirs = rates["gateway"], rates["llama.cpp"]
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    waits = sorted(a / b for a, b in zip(firsts["gateway"], firsts["llama.cpp"], strict=True))
    median = statistics.median
    print(
        f"{count:3} streams  tok/s gateway {median(ours):6.1f}  llama.cpp {median(theirs):6.1f}  "
        f"ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})   "
        f"TTFT s {median(firsts['gateway']):.2f} / {median(firsts['llama.cpp']):.2f}  "
        f"ratio {median(waits):.2f} ({waits[0]:.2f} to {waits[-1]:.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="1,4,8,16")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    slots = max(int(text) for text in options.streams.split(","))
    print(machine())
    llama, llama_port = _start_llama(slots)
    gateway = None
    try:
        flags = {
            "--slots": slots,
            "--context": _CONTEXT,
            "--batch-tokens": _BATCH,
            "--prompt-cache": "false",
        }
        environ = {
            "QWEN_OPENAI_" + name[2:].replace("-", "_").upper(): str(value)
            for name, value in flags.items()
        }
        gateway, port = start_gateway(environ=environ)
        asyncio.run(_measure({"gateway": port, "llama.cpp": llama_port}, options))
    finally:
        for process in (llama, gateway):
            if process is not None:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
