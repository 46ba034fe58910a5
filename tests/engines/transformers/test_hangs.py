"""Steps that hang: who is told, that the loop comes back, and what is none for all its waiting."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from transformers import PreTrainedModel

from qwen_openai.engines.torch_model.threads import THREAD_NAME
from qwen_openai.engines.transformers.runner import Runner
from qwen_openai.errors import ApiError, EngineFailed
from tests.engines.contract import until
from tests.engines.transformers.small import (
    ROOMY,
    failing,
    loop_of,
    outcome,
    read,
    rest,
    running,
    settled,
    small_model,
    track,
)

SHORT = [5, 6, 7]


@pytest.fixture(scope="module")
def model(qwen2_folder: Path) -> PreTrainedModel:
    return small_model(qwen2_folder)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not any(thread.name == THREAD_NAME for thread in threading.enumerate())


class Gate:
    """Holds the passes of a model until it is opened."""

    def __init__(self) -> None:
        self.reached, self._open = threading.Event(), threading.Event()

    def __call__(self, _: object) -> None:
        self.reached.set()
        self._open.wait(60)

    def open(self) -> None:
        self._open.set()


async def test_a_step_that_hangs_ends_all_answers_and_recovers(model: PreTrainedModel) -> None:
    gate = Gate()
    async with running(model, stall_timeout=0.5) as runner:
        with failing(model, gate):
            answers = await asyncio.gather(
                *(outcome(runner, track(model, [number, 3], 5)) for number in range(6))
            )
            assert all(isinstance(answer, EngineFailed) for answer in answers)
            unfit = runner.unfit()
            assert unfit is not None
            assert "hangs" in unfit
            assert not runner.lost
            gate.open()
        await until(lambda: runner.unfit() is None)
        await settled(runner)
        assert len(await read(runner, track(model, SHORT, 5))) == 5


async def test_a_step_that_hangs_is_lost_without_restarts(model: PreTrainedModel) -> None:
    gate = Gate()
    async with running(model, stall_timeout=0.5, restarts=False) as runner:
        with failing(model, gate):
            assert isinstance(await outcome(runner, track(model, SHORT, 5)), EngineFailed)
            gate.open()
        assert runner.lost


async def test_a_hang_that_ends_in_a_failure_is_over_too(model: PreTrainedModel) -> None:
    gate = Gate()

    def fault(given: object) -> None:
        gate(given)
        raise RuntimeError("a kernel failed")

    async with running(model, stall_timeout=0.5) as runner:
        with failing(model, fault):
            assert isinstance(await outcome(runner, track(model, SHORT, 5)), EngineFailed)
            gate.open()
            await until(lambda: not loop_of(runner).is_alive)
        await until(lambda: loop_of(runner).is_alive)
        assert runner.unfit() is None
        assert len(await read(runner, track(model, SHORT, 5))) == 5


async def test_closing_is_bounded_while_a_step_hangs(model: PreTrainedModel) -> None:
    gate = Gate()
    runner = Runner(model, ROOMY, 60)
    runner.build()
    await runner.start()
    with failing(model, gate):
        one = asyncio.create_task(outcome(runner, track(model, SHORT, 5)))
        await until(gate.reached.is_set)
        async with asyncio.timeout(20):
            await runner.close(0.1)
        assert isinstance(await one, ApiError)
        gate.open()
        await until(lambda: all(each.name != THREAD_NAME for each in threading.enumerate()))


async def test_a_reader_that_takes_its_time_is_no_hang(model: PreTrainedModel) -> None:
    """The loop has nothing to do while the last tokens of an answer wait for their reader."""
    with capture_logs() as logs:
        async with running(model, stall_timeout=0.5) as runner:
            one = track(model, SHORT, 3)
            runner.submit(one)
            await until(lambda: one.is_complete)
            quiet_from = loop_of(runner).rounds.stepped
            await until(lambda: time.monotonic() > quiet_from + 1.1)
            assert runner.in_flight == 1
            assert len(await rest(one)) == 3
    assert not logs
