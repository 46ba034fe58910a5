"""How late the loop is said to be."""

import asyncio
import time

from qwen_openai.observe.lag import Lag
from tests.live import until


async def test_what_blocks_the_loop_is_seen_and_later_forgotten() -> None:
    lag = Lag(window=0.2)
    lag.start()
    await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251  # that is what is to be seen
    await until(lambda: lag.worst >= 0.25)
    await until(lambda: lag.worst < 0.25)
    lag.stop()
    lag.stop()


def test_without_a_start_it_says_nought() -> None:
    lag = Lag()
    assert lag.worst == 0
    lag.stop()
