"""Faults of the model's steps: who is told, who goes on, and that the loop comes back.

Faults are raised in the passes of a tiny model; answers that go on are what they are undisturbed.
"""

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from qwen_openai.engines.masks import TokenMask
from qwen_openai.engines.torch_model.threads import THREAD_NAME
from qwen_openai.engines.transformers.track import Track
from qwen_openai.errors import ApiError, EngineFailed
from tests.engines.contract import until
from tests.engines.transformers.small import (
    failing,
    loop_of,
    outcome,
    read,
    rest,
    running,
    settled,
    small_model,
    spoiling,
    times,
    track,
)

SHORT, MIDDLE, LONG = [5, 6, 7], [11, 12, 13, 14, 15], [*range(20, 60)]
SEEDED: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 0.9,
    "seed": 7,
    "frequency_penalty": 0.4,
    "repetition_penalty": 1.1,
}


@pytest.fixture(scope="module")
def model(qwen2_folder: Path) -> PreTrainedModel:
    return small_model(qwen2_folder)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not any(thread.name == THREAD_NAME for thread in threading.enumerate())


def no_memory() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def broken() -> BaseException:
    return RuntimeError("a kernel failed")


def at_pass(number: int, error: BaseException) -> Any:  # noqa: ANN401  # a Fault
    """Raises in the pass of that number, and in no other."""
    passes = iter(range(1, number + 1))

    def fault(_: object) -> None:
        if next(passes, None) == number:
            raise error

    return fault


async def test_out_of_memory_ends_the_largest_answer_alone(model: PreTrainedModel) -> None:
    async with running(model) as runner:
        alone = [
            await read(runner, track(model, SHORT, 30)),
            await read(runner, track(model, MIDDLE, 30, **SEEDED)),
        ]
        with failing(model, at_pass(9, no_memory())):
            answers = await asyncio.gather(
                outcome(runner, track(model, SHORT, 30)),
                outcome(runner, track(model, LONG, 30)),
                outcome(runner, track(model, MIDDLE, 30, **SEEDED)),
            )
        await settled(runner)
    assert isinstance(answers[1], EngineFailed)
    assert "out of memory" in answers[1].message
    assert [answers[0], answers[2]] == alone


async def test_what_a_failed_step_computed_is_freed(model: PreTrainedModel) -> None:
    kept: list[weakref.ref[torch.Tensor]] = []

    def fault(_: object) -> None:
        if not kept:
            activation = torch.zeros(1000)
            kept.append(weakref.ref(activation))
            raise no_memory()

    async with running(model) as runner:
        with failing(model, fault):
            assert isinstance(await outcome(runner, track(model, SHORT, 5)), EngineFailed)
            assert len(await read(runner, track(model, SHORT, 5))) == 5
        assert kept[0]() is None


async def test_memory_that_never_comes_back_ends_everybody(model: PreTrainedModel) -> None:
    async with running(model) as runner:
        with failing(model, times(1000, no_memory)):
            answers = await asyncio.gather(
                *(outcome(runner, track(model, prompt, 9)) for prompt in (SHORT, MIDDLE, LONG))
            )
        assert all(isinstance(answer, EngineFailed) for answer in answers)
        assert runner.unfit() is None
        assert len(await read(runner, track(model, SHORT, 9))) == 9


async def test_a_prompt_that_is_too_much_is_the_one_to_go(model: PreTrainedModel) -> None:
    """A step that only reads prompts has no tokens, and yet somebody who brought it down."""

    def fault(given: dict[str, Any]) -> None:
        if given["input_ids"].shape[-1] > 30:
            raise no_memory()

    async with running(model) as runner:
        with failing(model, fault):
            small = track(model, SHORT, 20)
            runner.submit(small)
            await small.next()
            answer = await outcome(runner, track(model, list(range(200)), 5))
            assert isinstance(answer, EngineFailed)
            small.limits = small.limits.__class__(19, frozenset())
            assert len(await rest(small)) == 19
        runner.leave(small)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_rows_that_are_no_numbers_end_their_answer_alone(
    model: PreTrainedModel, value: float
) -> None:
    passes = iter(range(100))

    def spoil(logits: torch.Tensor) -> None:
        if next(passes) == 5:
            assert len(logits) == 3
            logits[1, :] = value

    async with running(model) as runner:
        alone = [await read(runner, track(model, prompt, 20)) for prompt in (SHORT, MIDDLE)]
        with spoiling(model, spoil):
            answers = await asyncio.gather(
                outcome(runner, track(model, SHORT, 20)),
                outcome(runner, track(model, LONG[:9], 20)),
                outcome(runner, track(model, MIDDLE, 20)),
            )
        assert runner._deaths == 0
        await settled(runner)
    assert isinstance(answers[1], EngineFailed)
    assert "no numbers" in answers[1].message
    assert [answers[0], answers[2]] == alone


class Rules:
    """Stands in for a grammar: allows all, and fails at one of its calls."""

    def __init__(self, size: int, error: Exception, when: str) -> None:
        self._mask, self._error, self._when = b"\xc8" * size, error, when
        self._taken = 0

    def allowed(self) -> bytes:
        if self._when == "allowed" and self._taken == 3:
            raise self._error
        return self._mask

    def take(self, token: int) -> None:
        self._taken += 1
        if self._when == "take" and self._taken == 3:
            raise self._error


@pytest.mark.parametrize("when", ["allowed", "take"])
@pytest.mark.parametrize("error", [EngineFailed("The grammar."), ValueError("the library")])
async def test_a_grammar_that_fails_ends_its_answer_alone(
    model: PreTrainedModel, when: str, error: Exception
) -> None:
    rules: Any = Rules(model.config.vocab_size, error, when)
    mask: TokenMask = rules
    held_to = track(model, LONG[:9], 20)
    held_to = Track(held_to.prompt, held_to.limits, held_to.sampler, mask)
    async with running(model) as runner:
        alone = await read(runner, track(model, SHORT, 20))
        answers = await asyncio.gather(
            outcome(runner, track(model, SHORT, 20)), outcome(runner, held_to)
        )
        assert runner._deaths == 0
        await settled(runner)
    assert answers[0] == alone
    assert isinstance(answers[1], EngineFailed)
    assert "grammar" in answers[1].message


async def test_another_failure_ends_its_step_and_not_those_who_wait(
    model: PreTrainedModel,
) -> None:
    async with running(model) as runner:
        alone = await read(runner, track(model, MIDDLE, 10))
        with failing(model, at_pass(6, broken())):
            # Four slots; the fifth and sixth wait.
            answers = await asyncio.gather(
                *(outcome(runner, track(model, [number, 3, 4], 12)) for number in range(4)),
                *(outcome(runner, track(model, MIDDLE, 10)) for _ in range(2)),
            )
        await settled(runner)
    assert all(isinstance(answer, EngineFailed) for answer in answers[:4])
    assert list(answers[4:]) == [alone, alone]


async def test_a_reader_gets_what_was_made_before_the_failure(model: PreTrainedModel) -> None:
    async with running(model) as runner:
        alone = await read(runner, track(model, SHORT, 10))
        with failing(model, at_pass(5, broken())):
            one = track(model, SHORT, 10)
            runner.submit(one)
            tokens = [(await one.next()).token for _ in range(4)]
            with pytest.raises(EngineFailed, match="failed while it answered"):
                await one.next()
            runner.leave(one)
    assert tokens == alone[:4]


async def test_answers_that_come_while_the_loop_is_dead_are_made(model: PreTrainedModel) -> None:
    async with running(model) as runner:
        alone = await read(runner, track(model, MIDDLE, 10))
        with failing(model, at_pass(1, broken())):
            first = asyncio.create_task(outcome(runner, track(model, SHORT, 10)))
            await until(lambda: not loop_of(runner).is_alive)
            late = await read(runner, track(model, MIDDLE, 10))
            assert isinstance(await first, EngineFailed)
    assert late == alone


async def test_a_model_that_fails_always_is_lost_after_some_tries(model: PreTrainedModel) -> None:
    async with running(model) as runner:
        passes = 0

        def fault(_: object) -> None:
            nonlocal passes
            passes += 1
            raise broken()

        with failing(model, fault):
            while not runner.lost:
                await outcome(runner, track(model, SHORT, 3))
        assert passes == 5
        unfit = runner.unfit()
        assert unfit is not None
        assert "5 times in a row" in unfit


async def test_tokens_in_between_make_failures_single_ones(model: PreTrainedModel) -> None:
    async with running(model) as runner:
        for _ in range(6):
            with failing(model, at_pass(2, broken())):
                assert isinstance(await outcome(runner, track(model, SHORT, 3)), EngineFailed)
        assert not runner.lost


async def test_without_restarts_a_dead_loop_is_lost(model: PreTrainedModel) -> None:
    async with running(model, restarts=False) as runner:
        with failing(model, at_pass(2, no_memory())):
            assert isinstance(await outcome(runner, track(model, SHORT, 3)), EngineFailed)
        assert not runner.lost  # an answer less, and the rest goes on
        assert len(await read(runner, track(model, SHORT, 3))) == 3
        with failing(model, at_pass(2, broken())):
            answers = await asyncio.gather(
                *(outcome(runner, track(model, [number, 3], 5)) for number in range(6))
            )
        assert all(isinstance(answer, EngineFailed) for answer in answers)
        assert runner.lost


async def test_a_failure_that_is_heard_late_ends_the_work(model: PreTrainedModel) -> None:
    """The loop that failed it may have died, and the next one have taken it up, before it hears."""
    async with running(model) as runner:
        one = track(model, SHORT, 900)
        runner.submit(one)
        await one.next()
        runner._spread([(one, EngineFailed("The grammar."))])
        with pytest.raises(EngineFailed, match="grammar"):
            await rest(one)
        runner.leave(one)
        await settled(runner)
        assert not one.is_complete


async def test_closing_frees_the_model(qwen2_folder: Path) -> None:
    model = small_model(qwen2_folder)
    gone = weakref.ref(model)
    async with running(model) as runner:
        cache = weakref.ref(loop_of(runner).rounds.cache.cache_tensor)
        with failing(model, at_pass(3, no_memory())):
            await outcome(runner, track(model, SHORT, 5))
        await read(runner, track(model, SHORT, 5))
        one = track(model, SHORT, 400)
        runner.submit(one)
        await one.next()
    with pytest.raises(ApiError):
        await rest(one)
    del model
    gc.collect()
    assert gone() is None
    assert cache() is None


async def test_transformers_prints_nothing(
    model: PreTrainedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(model) as runner:
        with failing(model, at_pass(2, broken())):
            await outcome(runner, track(model, SHORT, 5))
    assert "ContinuousBatchingLogger" not in "".join(capfd.readouterr())
    assert not logging.getLogger("ContinuousBatchingLogger").isEnabledFor(logging.CRITICAL)
