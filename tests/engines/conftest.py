"""The real model for engine tests: described once, loaded as often as a test needs it fresh."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest
import torch

from qwen_openai.engines.llamacpp import LlamaCppEngine, LlamaCppOptions, Timings, Vocabulary
from qwen_openai.families import family_of
from qwen_openai.models.store import ModelFiles
from qwen_openai.prompting.bpe import Bpe
from qwen_openai.prompting.render import Renderer
from qwen_openai.prompting.template import ChatTemplate
from tests.real import real_files

MakeEngine = Callable[..., LlamaCppEngine]
Running = Callable[..., AbstractAsyncContextManager[LlamaCppEngine]]


@pytest.fixture(scope="session")
def model() -> ModelFiles:
    """The embedded model's files."""
    return real_files()


@pytest.fixture(scope="session")
def bpe(model: ModelFiles) -> Bpe:
    return Bpe(model.tokenizer)


@pytest.fixture(scope="session")
def renderer(model: ModelFiles, bpe: Bpe) -> Renderer:
    return Renderer(bpe, ChatTemplate(model.description.template))


@pytest.fixture(scope="session")
def stop_ids(model: ModelFiles, renderer: Renderer) -> tuple[int, ...]:
    ids = (renderer.token_id(token) for token in family_of(model.name).stop_tokens)
    return tuple(token_id for token_id in ids if token_id is not None)


@pytest.fixture(scope="session")
def options(model: ModelFiles) -> LlamaCppOptions:
    """A small engine that repeats itself: two slots, no prompt cache."""
    return LlamaCppOptions(
        weights=model.weights,
        name=model.name,
        context=1024,
        slots=2,
        threads=2,
        prompt_cache=False,
        default_max_tokens=512,
    )


@pytest.fixture(scope="session")
def make_engine(
    options: LlamaCppOptions, bpe: Bpe, renderer: Renderer, stop_ids: tuple[int, ...]
) -> MakeEngine:
    """Make an unstarted engine; options by name, ``timings`` and ``stops`` besides."""

    def make(
        *, timings: Timings | None = None, stops: tuple[int, ...] | None = None, **changed: object
    ) -> LlamaCppEngine:
        return LlamaCppEngine(
            replace(options, **changed),  # type: ignore[arg-type]  # named by the tests
            lambda: Vocabulary(
                renderer, frozenset(stop_ids if stops is None else stops), bpe.special
            ),
            timings=timings,
        )

    return make


@pytest.fixture(scope="session")
def running(make_engine: MakeEngine) -> Running:
    """An engine of the test's own, started and closed around a block."""

    @asynccontextmanager
    async def run(**changed: object) -> AsyncIterator[LlamaCppEngine]:
        engine = make_engine(**changed)
        await engine.start()
        try:
            yield engine
        finally:
            await engine.aclose()

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For small tensors, which threads only slow down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
