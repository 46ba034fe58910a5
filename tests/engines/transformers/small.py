"""A tiny model in a Runner, faults that its passes meet, and answers that are read to their end."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from qwen_openai.core import Sampling
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.transformers.loop import Loop
from qwen_openai.engines.transformers.runner import Runner, Shape
from qwen_openai.engines.transformers.track import Track
from qwen_openai.errors import ApiError
from tests.engines.contract import until

PAGE = 8
ROOMY = Shape(slots=4, pages=128, page_size=PAGE, batch_tokens=64)
CPU = torch.device("cpu")

Fault = Callable[[Any], None]
"""Is called before a pass of the model with the keywords that it gets, and may raise or wait."""


def small_model(folder: Path) -> PreTrainedModel:
    """The model in ``folder`` as transformers loads it, float32 on the CPU."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


@contextmanager
def failing(model: PreTrainedModel, fault: Fault) -> Iterator[None]:
    """Let each pass of ``model`` meet ``fault`` first."""

    def before(_: object, __: tuple[object, ...], given: dict[str, Any]) -> None:
        fault(given)

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def spoiling(model: PreTrainedModel, spoil: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Let ``spoil`` alter the logits of each pass, (answers, vocabulary)."""

    def after(_: object, __: object, output: Any) -> None:  # noqa: ANN401  # transformers' own
        spoil(output.logits[0])

    handle = model.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def times(count: int, error: Callable[[], BaseException]) -> Fault:
    """A fault that raises ``error`` in the next ``count`` passes."""
    left = iter(range(count))

    def fault(_: object) -> None:
        if next(left, None) is not None:
            raise error()

    return fault


def track(
    model: PreTrainedModel,
    prompt: Sequence[int],
    count: int,
    **sampling: object,
) -> Track:
    """An answer of ``count`` tokens, greedy unless ``sampling`` says otherwise."""
    values: dict[str, Any] = {"temperature": 0.0, **sampling}
    limits = Limits(count, frozenset())
    vocabulary: int = model.config.vocab_size
    return Track.of(prompt, Sampling(**values), limits, None, CPU, vocabulary)


async def read(runner: Runner, one: Track) -> list[int]:
    """Submit an answer and read it to its end. Raises what ends it before."""
    try:
        runner.submit(one)
        return await rest(one)
    finally:
        runner.leave(one)


async def rest(one: Track) -> list[int]:
    """Read what is left of an answer."""
    tokens: list[int] = []
    while True:
        tokens.append((await one.next()).token)
        if tokens[-1] in one.limits.stop or len(tokens) == one.limits.max_tokens:
            return tokens


async def outcome(runner: Runner, one: Track) -> list[int] | ApiError:
    """The tokens of an answer, or what ended it."""
    try:
        return await read(runner, one)
    except ApiError as failure:
        return failure


@asynccontextmanager
async def running(
    model: PreTrainedModel,
    shape: Shape = ROOMY,
    *,
    stall_timeout: float = 60,
    restarts: bool = True,
) -> AsyncIterator[Runner]:
    """A runner that steps."""
    runner = Runner(model, shape, stall_timeout)
    runner.build()
    await runner.start(restarts=restarts)
    try:
        yield runner
    finally:
        await runner.close(5)


def held(loop: Loop) -> dict[str, int]:
    """What transformers and the cache still know of answers; all 0 where nothing is in flight."""
    rounds = loop.rounds
    manager: Any = loop._manager
    cache = rounds.cache
    cache.evict_cached_blocks()
    cache.pool.try_to_free_sectors()
    tables = [len(allocator.block_table) for allocator in cache.cache_allocators.values()]
    return {
        "pages": round((1 - cache.compute_free_capacity()) * cache.num_sectors),
        "tables": sum(tables),
        "active": len(rounds.active_requests),
        "waiting": len(rounds.waiting_requests) + len(rounds.waiting_requests_order),
        "to come": manager.input_queue.qsize(),
        "to go": manager.cancel_queue.qsize(),
        "handlers": len(manager.output_router.result_handlers),
    }


def loop_of(runner: Runner) -> Loop:
    """The loop of a runner that has been built."""
    return runner._require_loop()


async def settled(runner: Runner) -> None:
    """Wait until the loop has seen the last of what has left, and see that nothing is held."""
    loop = loop_of(runner)
    rounds = loop.rounds
    await until(
        lambda: (
            not rounds.active_requests
            and loop._manager.cancel_queue.empty()
            and loop._manager.input_queue.empty()
        )
    )
    seen = rounds.round
    await until(lambda: rounds.round > seen)
    assert set(held(loop).values()) == {0}, held(loop)
    assert runner.in_flight == 0
