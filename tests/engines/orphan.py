"""A gateway that can be killed: starts the engine, prints the child's process id, and waits.

Run as `python -m tests.engines.orphan WEIGHTS`; the second line says that the model is loaded.
"""

import asyncio
import json
import sys
from pathlib import Path

from qwen_openai.engines.llamacpp.process import Process
from tests.engines.test_process import config


async def main(weights: str) -> None:
    ready = asyncio.Event()
    process = await Process.spawn(
        json.dumps(config(Path(weights))).encode(), lambda _: ready.set(), lambda: None
    )
    sys.stdout.write(f"{process.pid}\n")
    sys.stdout.flush()
    await ready.wait()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
