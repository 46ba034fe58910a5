"""Work ends when its client leaves, whoever tells: our protocol, or the messages of ASGI."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from qwen_openai.routes.disconnect import LEAVING, ClientLeft, Leaving, until_disconnect


def _nothing() -> None:
    return None


async def _silent() -> MutableMapping[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def _forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("before", [True, False])
async def test_a_client_of_ours_that_leaves_ends_the_work_without_a_task(before: bool) -> None:
    listening: list[bool] = []
    leaving = Leaving(before, lambda: listening.append(True))
    if not before:
        asyncio.get_running_loop().call_soon(leaving.leave)
    tasks = len(asyncio.all_tasks())
    with pytest.raises(ClientLeft):
        await until_disconnect({LEAVING: leaving}, _silent, _forever())
    assert len(asyncio.all_tasks()) == tasks
    assert listening == ([] if before else [True])
    leaving.leave()  # nobody is told twice
    await asyncio.sleep(0)


async def test_work_that_is_done_is_not_disturbed_by_who_leaves_later() -> None:
    leaving = Leaving(False, _nothing)
    assert await until_disconnect({LEAVING: leaving}, _silent, asyncio.sleep(0, 7)) == 7
    leaving.leave()
    await asyncio.sleep(0)


async def test_another_cancellation_stays_one() -> None:
    scope = {LEAVING: Leaving(False, _nothing)}
    task = asyncio.create_task(until_disconnect(scope, _silent, _forever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_behind_another_server_the_messages_tell() -> None:
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    with pytest.raises(ClientLeft):
        await until_disconnect({}, receive, _forever())
