"""The server of `bench.fairness`: the real gateway before an engine that takes a given time.

`python -m bench.fair_server PORT SLOTS SECONDS SPREAD KEY...`: every answer takes SECONDS, more or
less by up to the share SPREAD, as answers of different lengths would.
"""

import asyncio
import random
import sys
from collections.abc import Iterable

from qwen_openai.app import create_app
from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Step
from qwen_openai.gateway.keys import Key, digest_of
from qwen_openai.observe.logs import configure
from qwen_openai.server import Server, bind
from qwen_openai.settings import Settings


async def main(port: int, slots: int, seconds: float, spread: float, names: list[str]) -> None:
    dice = random.Random(0)

    def script(_: Job) -> Iterable[Step]:
        return [seconds * dice.uniform(1 - spread, 1 + spread), "Done."]

    settings = Settings.model_validate(
        {"port": port, "database": "off", "log_level": "warning", "queue_size": 64}
    )
    configure(settings)
    engine = FakeEngine(script, slots=slots)
    await engine.start()
    app = create_app(settings, engine)
    app.state.gateway.keys.replace(
        [(digest_of(name.encode()), Key(id=name, name=name)) for name in names]
    )
    await Server(settings, app, app.state.gateway).serve_on(bind(settings), None)


if __name__ == "__main__":
    asyncio.run(
        main(
            int(sys.argv[1]),
            int(sys.argv[2]),
            float(sys.argv[3]),
            float(sys.argv[4]),
            sys.argv[5:],
        )
    )
