"""What picks for a batch: faults between a step's logits and its tokens, and what is logged."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from qwen_openai.errors import ApiError, EngineFailed
from tests.engines.transformers.small import (
    failing,
    outcome,
    read,
    running,
    small_model,
    times,
    track,
)

SHORT, MIDDLE, LONG = [5, 6, 7], [8, 9, 10, 11], [*range(20, 60)]


@pytest.fixture(scope="module")
def model(qwen2_folder: Path) -> PreTrainedModel:
    return small_model(qwen2_folder)


class Failing(TorchFunctionMode):
    """In the thread that enters it, no memory is left for one of torch's functions."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self._function = function

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        if func is self._function:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return func(*args, **(kwargs or {}))


async def answers(model: PreTrainedModel, broken: object) -> Sequence[list[int] | ApiError]:
    """Three answers, of which the first is complete with the step whose picking fails."""
    passes = iter(range(3))

    def fault(_: object) -> None:
        if next(passes, None) == 2:
            # Of the loop's thread, which ends by it.
            Failing(broken).__enter__()  # type: ignore[no-untyped-call]  # torch leaves it bare

    async with running(model) as runner:
        with failing(model, fault):
            async with asyncio.timeout(30):
                return await asyncio.gather(
                    outcome(runner, track(model, SHORT, 3)),
                    outcome(runner, track(model, MIDDLE, 9)),
                    outcome(runner, track(model, LONG, 9)),
                )


async def test_tokens_that_were_picked_are_delivered_whatever_fails_next(
    model: PreTrainedModel,
) -> None:
    async with running(model) as runner:
        alone = [
            await read(runner, track(model, SHORT, 3)),
            await read(runner, track(model, MIDDLE, 9)),
        ]
    short, middle, long = await answers(model, torch.Tensor.scatter_)
    assert [short, middle] == alone
    assert isinstance(long, EngineFailed)


async def test_a_step_that_fails_at_its_tokens_leaves_nobody_waiting(
    model: PreTrainedModel,
) -> None:
    """Also not one that would have been complete."""
    for answer in await answers(model, torch.Tensor.argmax):
        assert isinstance(answer, EngineFailed)
        assert "memory" in answer.message


async def test_what_is_logged_of_a_failure_is_code_alone(model: PreTrainedModel) -> None:
    """Local variables, which whoever renders an exception may print, hold prompts."""
    with capture_logs() as logs:
        async with running(model) as runner:
            with failing(model, times(1, lambda: RuntimeError("a kernel failed"))):
                await outcome(runner, track(model, [271] * 40, 3))
    (died,) = [line for line in logs if line["event"] == "the engine's loop died"]
    assert "exc_info" not in died
    assert "RuntimeError: a kernel failed" in died["stack"]
    assert "271" not in str({**died, "stack": ""})
    assert "tensor(" not in died["stack"]
