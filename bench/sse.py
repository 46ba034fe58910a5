"""Why sse-starlette is not used: `python -m bench.sse`.

The same 20,000 events through `EventSourceResponse` and through `routes.respond.send_events`, into
a sink that drops them: microseconds an event, and the ratio.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator

from sse_starlette.sse import EventSourceResponse
from starlette.types import Message

from bench.load import machine
from qwen_openai.routes.respond import send_events
from qwen_openai.sse import frame

_EVENTS = 20_000
_CHUNK = {
    "id": "chatcmpl-0",
    "object": "chat.completion.chunk",
    "created": 0,
    "model": "qwen",
    "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}],
}


async def _sink(message: Message) -> None:
    return


async def _forever() -> Message:
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


async def _ours() -> None:
    async def frames() -> AsyncGenerator[bytes, None]:
        for _ in range(_EVENTS):
            yield frame(_CHUNK)

    await send_events(_sink, frames())


async def _theirs() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        for _ in range(_EVENTS):
            yield frame(_CHUNK)

    scope = {"type": "http", "method": "POST", "asgi": {"spec_version": "2.3"}}
    await EventSourceResponse(events(), sep="\n")(scope, _forever, _sink)


def main() -> None:
    print(machine())
    costs: dict[str, list[float]] = {"ours": [], "sse-starlette": []}
    for round_number in range(6):
        for name, run in (("ours", _ours), ("sse-starlette", _theirs)):
            begun = time.perf_counter()
            asyncio.run(run())
            if round_number:
                costs[name].append((time.perf_counter() - begun) / _EVENTS * 1e6)
    ours, theirs = (statistics.median(values) for values in costs.values())
    print(f"ours {ours:.2f} µs an event, sse-starlette {theirs:.2f}, ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
