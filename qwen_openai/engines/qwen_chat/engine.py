"""The engine that runs a checkpoint in this process with torch, or a user's own chat model.

One generation at a time, in a thread of its own: the queue is `gateway.admission`, and a model of
Qwen-1's shape keeps state between its steps. Everything that blocks, rendering included, happens in
that thread. Imports no torch: the thread does, when it loads.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Self

from qwen_openai.core import Event, Finish, Job
from qwen_openai.engines.base import EngineInfo, Health
from qwen_openai.engines.qwen_chat import foreign
from qwen_openai.engines.qwen_chat.foreign_text import Tokenizer
from qwen_openai.engines.qwen_chat.jobs import LocalModel, answerer, describe
from qwen_openai.engines.qwen_chat.worker import Answer, Loaded, Worker
from qwen_openai.engines.torch_model.failures import not_loaded
from qwen_openai.engines.torch_model.jobs import Tokens, tokens_of
from qwen_openai.errors import ApiError, EngineUnavailable, StartupError

# Seconds that the present step may take to end when the engine is closed. With the moment that the
# server gives to clients, a drain timeout of 0 still ends within four.
_CLOSE_PATIENCE = 2.5


@dataclass(frozen=True, slots=True)
class QwenChatOptions:
    """What the engine calls its model and how far it may go.

    ``context`` is tokens of prompt and answer together, None for the QwenChat's own; a foreign
    model needs it, and the ``tokenizer`` that its `chat` takes. ``stall_timeout`` is the seconds
    that one step may take before `health` says that the model hangs."""

    name: str
    context: int | None = None
    default_max_tokens: int = 4096
    stall_timeout: float = 120.0
    tokenizer: Tokenizer | None = None


class QwenChatEngine:
    """Keeps the contract of `base.Engine` over one model object."""

    def __init__(
        self, load: Callable[[], LocalModel | foreign.ChatModel], options: QwenChatOptions
    ) -> None:
        """``load`` runs once, in the engine's thread; it returns a QwenChat, or an object with
        `chat` and `chat_stream` of the original's shape. What it raises ends the start."""
        self._load = load
        self._options = options
        self._worker: Worker | None = None
        self._info: EngineInfo | None = None
        self._tokens: Tokens | None = None
        self._answers: set[Answer] = set()
        self._state = "not started"

    @classmethod
    def of(
        cls,
        model: LocalModel | foreign.ChatModel,
        tokenizer: Tokenizer | None = None,
        *,
        name: str,
        context: int | None = None,
        default_max_tokens: int = 4096,
    ) -> Self:
        """An engine on a model that is loaded already, such as a checkpoint's own remote-code model
        with its tokenizer (transformers 4.35 to 4.40). The model must not be used elsewhere
        meanwhile. ``context`` is required of a model that is no QwenChat."""
        options = QwenChatOptions(name, context, default_max_tokens, tokenizer=tokenizer)
        return cls(lambda: model, options)

    async def start(self) -> None:
        """Load the model. Raises StartupError."""
        self._state = "loading"
        self._worker = Worker(self._loaded, self._options.stall_timeout)
        try:
            self._info = await self._worker.start()
        except BaseException:
            await self.aclose()
            raise
        self._state = "ready"

    async def aclose(self) -> None:
        """Fail what is in flight and free the model. Returns after a bounded time, even when a step
        does not end: its thread is left behind then."""
        self._state = "closed"
        for answer in self._answers:
            answer.leave(EngineUnavailable("The server is stopping.", retry_after=5))
        worker, self._worker, self._tokens = self._worker, None, None
        if worker is not None:
            await worker.close(_CLOSE_PATIENCE)

    def health(self) -> Health:
        """Not ready while loading, closed or hung, and with a device or thread that is broken."""
        worker = self._worker
        if worker is None or self._state != "ready":
            return Health(False, self._state)
        unfit = worker.unfit()
        return Health(True, "ready") if unfit is None else Health(False, unfit)

    def info(self) -> EngineInfo:
        if self._info is None:
            raise EngineUnavailable("The engine has not been started.")
        return self._info

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run one choice of a job. Raises ContextLengthExceeded and InvalidRequest of the prompt,
        EngineUnavailable while not ready, EngineFailed when the model breaks or hangs.

        However it ends, it ends only when the thread works for the job no more, unless the thread
        hangs."""
        worker = self._require_ready()
        answer = Answer(worker.hopeless)
        self._answers.add(answer)
        worker.submit(job, answer)
        try:
            over = False
            while not over:
                event = await answer.next()
                over = isinstance(event, Finish)
                if over:
                    # Before the reader takes the last event: it may take its time.
                    await self._leave(answer)
                yield event
        finally:
            await self._leave(answer)

    async def tokenize(self, job: Job) -> list[int]:
        """Return the ids of a job's prompt, whatever their number, while answers go on. Raises
        InvalidRequest, EngineUnavailable while not ready."""
        return await asyncio.to_thread(self._require_tokens().encode, job)

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token. Raises InvalidRequest for an id that is none,
        EngineUnavailable while not ready."""
        return await asyncio.to_thread(self._require_tokens().decode, ids)

    def _require_tokens(self) -> Tokens:
        tokens = self._tokens
        if tokens is None or self._state != "ready":
            raise EngineUnavailable(f"The engine is not ready: {self._state}.", retry_after=5)
        return tokens

    async def _leave(self, answer: Answer) -> None:
        answer.leave()
        try:
            await answer.settled()
        finally:
            self._answers.discard(answer)

    def _require_ready(self) -> Worker:
        health, worker = self.health(), self._worker
        if worker is None or not health.ready:
            detail = health.detail.rstrip(".")
            raise EngineUnavailable(f"The engine is not ready: {detail}.", retry_after=5)
        return worker

    def _loaded(self) -> Loaded:
        """In the thread. Raises StartupError, whatever the libraries below raise."""
        try:
            loaded = self._describe(self._load())
            self._tokens = loaded.tokens
            return loaded
        except (StartupError, ApiError):
            raise
        except Exception as error:  # the edge to libraries and to a caller's own `load`
            raise not_loaded(self._options.name, error) from error

    def _describe(self, model: LocalModel | foreign.ChatModel) -> Loaded:
        options = self._options
        if not isinstance(model, LocalModel):
            return self._describe_foreign(model)
        context = min(options.context or model.context, model.context)
        info = describe(model, options.name, context)
        run = answerer(model, context=context, default_max_tokens=options.default_max_tokens)
        # Made in the middle of an answer, it would hold up all others.
        model.masks()
        return Loaded(info, run, tokens_of(model.checkpoint, model.renderer))

    def _describe_foreign(self, model: foreign.ChatModel) -> Loaded:
        options = self._options
        if options.tokenizer is None or options.context is None:
            raise StartupError(
                "A model object of one's own was given without its tokenizer or its context.",
                fix="QwenChatEngine.of(model, tokenizer, name='...', context=8192)",
            )
        context = foreign.window_of(model, options.context)
        info = EngineInfo(
            engine="qwen_chat",
            model=options.name,
            device=_device(model),
            context=context,
            slots=1,
            facts=(("model object", type(model).__name__),),
            family="qwen1",
            tools="react",
            refuses=foreign.REFUSES,
        )
        run = foreign.answerer(
            model,
            options.tokenizer,
            context=context,
            default_max_tokens=options.default_max_tokens,
        )
        return Loaded(info, run, foreign.tokens_of(options.tokenizer))


def _device(model: object) -> str:
    device = getattr(model, "device", None)
    return "its own" if device is None else str(device)
