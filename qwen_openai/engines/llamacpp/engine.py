"""The llama.cpp engine: keeps the contract of `base.Engine` over a supervised child process.

Here jobs become numbered requests and their frames become events. Prompts are rendered in a worker
thread; the child is another process, so the event loop never waits for native code.
"""

import asyncio
import functools
import itertools
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson
import psutil
import structlog

from qwen_openai.core import Event, Job, Started
from qwen_openai.engines.base import EngineInfo, Health
from qwen_openai.engines.llamacpp.answers import Answer
from qwen_openai.engines.llamacpp.child import Config
from qwen_openai.engines.llamacpp.chunks import Ask, Translator
from qwen_openai.engines.llamacpp.enforce import Enforcer
from qwen_openai.engines.llamacpp.frames import Frame, Kind
from qwen_openai.engines.llamacpp.requests import (
    Body,
    Tokens,
    penalty_changes,
    request_body,
    stop_ids,
)
from qwen_openai.engines.llamacpp.steps import Held, Kept
from qwen_openai.engines.llamacpp.supervisor import Supervisor, Timings
from qwen_openai.engines.llamacpp.workers import Workers
from qwen_openai.engines.masks import TokenMasks
from qwen_openai.errors import ApiError, EngineFailed, EngineUnavailable, InvalidRequest
from qwen_openai.grammars.guard import Guard
from qwen_openai.prompting.prepare import Prompt, prepare, prompt_ids
from qwen_openai.prompting.render import Renderer

_PROMPT_THREADS = 2
_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LlamaCppOptions:
    """What the engine runs and how.

    ``context`` is tokens in one slot, ``batch_tokens`` the prompt tokens processed in one step,
    ``stall_timeout`` the seconds without progress that are taken for a hang.
    """

    weights: Path
    name: str
    context: int
    slots: int
    threads: int
    batch_tokens: int = 128
    prompt_cache: bool = True
    prompt_cache_mib: int = 0
    default_max_tokens: int = 4096
    stall_timeout: float = 120.0


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What turns messages into token ids, the ids that end an answer, and the control tokens."""

    renderer: Renderer
    stop_ids: frozenset[int]
    special: frozenset[int]

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.stop_ids, self.special, self.renderer.vocab_size, self._piece)

    @property
    def ends(self) -> frozenset[int]:
        """The control tokens that end an answer; of a family that names none, any of them does."""
        return self.stop_ids & self.special or self.special

    def masks(self) -> TokenMasks:
        """Make the masks of grammars; takes a second. Raises EngineFailed."""
        return TokenMasks(self.renderer.bpe, self.renderer.vocab_size, self.ends)

    def _piece(self, number: int) -> bytes:
        # A model may have rows for more ids than its vocabulary has tokens.
        return self.renderer.pieces([number])[0] if self.renderer.knows(number) else b""


@dataclass(frozen=True, slots=True)
class _Request:
    """A job, ready for the child: the body, what its chunks mean, and what holds it to a grammar,
    if it has one."""

    body: Body
    ask: Ask
    kept: Kept | None


class LlamaCppEngine:
    """Runs one GGUF model in a child process. Make it in the event loop that will use it."""

    def __init__(
        self,
        options: LlamaCppOptions,
        load_vocabulary: Callable[[], Vocabulary],
        *,
        timings: Timings | None = None,
    ) -> None:
        """``load_vocabulary`` runs once, in a thread, while the child loads the weights."""
        self._options = options
        self._load_vocabulary = load_vocabulary
        self._vocabulary: asyncio.Task[Vocabulary] | None = None
        self._answers: dict[int, Answer] = {}
        self._workers = Workers(_PROMPT_THREADS, "prompts")
        self._enforcer = Enforcer(self._submit, self._in_thread)
        self._numbers = itertools.count(1)
        self._progress = 0.0
        self._memory = 0
        self._load_seconds = 0.0
        timings = timings or Timings()
        config: Config = {
            "weights": str(options.weights),
            "context": options.context,
            "slots": options.slots,
            "threads": options.threads,
            "batch_tokens": options.batch_tokens,
            "prompt_cache": options.prompt_cache,
            "prompt_cache_mib": options.prompt_cache_mib,
            "heartbeat": timings.heartbeat,
        }
        self._supervisor = Supervisor(
            config,
            timings,
            on_frame=self._on_frame,
            on_down=self._on_down,
            on_launch=self._on_launch,
            stalled=self._stalled,
        )

    @property
    def pid(self) -> int | None:
        """The process id of the child, None while there is none."""
        return self._supervisor.pid

    @property
    def in_flight(self) -> int:
        """Answers that the child has been asked for and that are not over."""
        return len(self._answers)

    @property
    def carried_on(self) -> int:
        """Answers, since the beginning, that llama.cpp let stray from their grammar."""
        return self._enforcer.count

    async def start(self) -> None:
        """Load the model in a child process. Raises StartupError: a missing library, a CPU without
        AVX2, a file that is no model, too little memory."""
        begun = time.monotonic()
        try:
            await self._supervisor.start()
            await self._ready_vocabulary()
        except BaseException:
            await self.aclose()
            raise
        self._load_seconds = time.monotonic() - begun
        if self.pid is not None:
            self._memory = await asyncio.to_thread(_resident, self.pid)

    async def aclose(self) -> None:
        """Fail what is in flight and end the child."""
        self._fail_all(lambda: EngineUnavailable("The server is stopping.", retry_after=5))
        await self._supervisor.aclose()
        if self._vocabulary is not None:
            # It may still load, or have failed beside a child that failed first.
            await asyncio.gather(self._vocabulary, return_exceptions=True)
        self._workers.close()

    def health(self) -> Health:
        return self._supervisor.health()

    def info(self) -> EngineInfo:
        options = self._options
        renderer = self._loaded_renderer()
        cache = "on" if options.prompt_cache else "off"
        if options.prompt_cache and options.prompt_cache_mib:
            cache = f"on, and {options.prompt_cache_mib} MiB for idle prompts"
        return EngineInfo(
            engine="llamacpp",
            model=options.name,
            device="Metal" if sys.platform == "darwin" else "CPU",
            context=options.context,
            slots=options.slots,
            memory=self._memory,
            facts=(
                ("threads", str(options.threads)),
                ("batch", f"{options.batch_tokens} tokens"),
                ("prompt cache", cache),
                ("loaded in", f"{self._load_seconds:.1f} s"),
            ),
            tools=renderer.tools if renderer else None,
            thinking=renderer.thinking if renderer else "never",
            fills_in=renderer is not None and renderer.fills_in,
        )

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run one choice of a job. Raises ContextLengthExceeded, EngineUnavailable while the child
        is not ready, EngineFailed when it breaks."""
        vocabulary = await self._ready_vocabulary()
        request = await self._in_thread(functools.partial(self._request, job, vocabulary))
        kept = request.kept
        async with aclosing(self._events(request)) as events:
            async for event in events:
                yield event
        if kept is not None and kept.left:
            _log.info("grammar_left_by_llama", job=job.id, tokens=kept.tokens)
            async with aclosing(self._enforcer.go_on(kept, vocabulary.masks)) as events:
                async for event in events:
                    yield event

    async def _events(self, request: _Request) -> AsyncGenerator[Event, None]:
        """llama.cpp's own answer, as far as it keeps to its grammar."""
        kept = request.kept
        translator = Translator(request.ask)
        answer = self._submit(request.body)
        try:
            over = False
            while not over:
                events = translator.feed(await answer.chunk())
                answer.ended = translator.ended
                over = translator.done
                if kept is not None:
                    events = kept.take(events, translator.ids)
                    over = over or kept.left
                if kept is not None and kept.left:
                    # What goes on with the answer shall find the slot free.
                    await answer.end()
                elif over:
                    # Before the reader takes the last events: it may take its time.
                    answer.leave()
                for event in events:
                    yield event
        finally:
            answer.leave()

    async def tokenize(self, job: Job) -> list[int]:
        """Return the ids of a job's prompt. Raises InvalidRequest, EngineUnavailable while the
        child is not ready."""
        vocabulary = await self._ready_vocabulary()
        return await self._in_thread(functools.partial(prompt_ids, job, vocabulary.renderer))

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token. Raises InvalidRequest for an id that is none."""
        vocabulary = await self._ready_vocabulary()
        return await self._in_thread(functools.partial(vocabulary.renderer.pieces, ids))

    def _request(self, job: Job, vocabulary: Vocabulary) -> _Request:
        """Make a job ready; blocking."""
        options, tokens = self._options, vocabulary.tokens
        prompt = prepare(
            job,
            vocabulary.renderer,
            context=options.context,
            default_max_tokens=options.default_max_tokens,
        )
        started = Started(
            job.choice,
            len(prompt.ids),
            changes=prompt.changes + penalty_changes(job.sampling),
            in_thought=prompt.in_thought,
        )
        body = request_body(
            job, prompt, tokens, context=options.context, prompt_cache=options.prompt_cache
        )
        ask = Ask(started, stop_ids(prompt, tokens), job.sampling.logprobs, tokens.piece)
        return _Request(body, ask, _kept(job, prompt, vocabulary.ends, ask, body))

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        """Work on a prompt in a thread; cancelled, it holds on until the thread is free again, for
        the slot of the job is given to the next as soon as this is over."""
        self._require_ready()
        return await self._workers.run(call)

    def _on_launch(self) -> None:
        # Only now: loading holds the interpreter's lock, and would delay the child's start.
        if self._vocabulary is None:
            self._vocabulary = asyncio.create_task(asyncio.to_thread(self._load_vocabulary))

    async def _ready_vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            raise EngineUnavailable("The engine has not been started.")
        return await asyncio.shield(self._vocabulary)

    def _loaded_renderer(self) -> Renderer | None:
        task = self._vocabulary
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result().renderer

    def _require_ready(self) -> None:
        health = self.health()
        if not health.ready:
            raise EngineUnavailable(
                f"The engine is not ready: {health.detail}. Send the request again in a moment.",
                retry_after=self._supervisor.retry_after,
            )

    def _submit(self, body: Body) -> Answer:
        self._require_ready()
        if not self._answers:
            self._progress = time.monotonic()
        answer = Answer(next(self._numbers), forget=self._forget, cancel=self._cancel)
        self._answers[answer.number] = answer
        self._supervisor.send(Kind.SUBMIT, answer.number, orjson.dumps(body))
        return answer

    def _forget(self, number: int) -> bool:
        return self._answers.pop(number, None) is not None

    def _cancel(self, number: int) -> None:
        self._supervisor.send(Kind.CANCEL, number)

    def _on_frame(self, frame: Frame) -> None:
        self._progress = time.monotonic()
        if answer := self._answers.get(frame.request):
            answer.push(frame)

    def _on_down(self, ending: str) -> None:
        self._fail_all(
            lambda: EngineFailed(
                f"The engine process {ending} while it answered; it is being restarted; "
                "send the request again."
            )
        )

    def _fail_all(self, make_error: Callable[[], ApiError]) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.fail(make_error())

    def _stalled(self) -> str | None:
        limit = self._options.stall_timeout
        if self._answers and time.monotonic() - self._progress > limit:
            return f"no progress for {limit:g} seconds"
        return None


def _kept(job: Job, prompt: Prompt, ends: frozenset[int], ask: Ask, body: Body) -> Kept | None:
    """What follows a job's answer through its grammar. Raises InvalidRequest where that is too much
    for it: behind a thought a grammar may cost more than it does alone."""
    if prompt.grammar is None or job.grammar is None:
        return None
    stops = frozenset(prompt.stop_ids)
    held = Held(
        ask=ask,
        body=body,
        grammar=prompt.grammar,
        ids=prompt.ids,
        max_tokens=prompt.max_tokens,
        ends=ends,
        stops=stops,
        param=job.grammar.param,
        watched=job.watched,
    )
    try:
        return Kept(held, Guard.of_whole(prompt.grammar))
    except EngineFailed as error:
        raise InvalidRequest(error.message, param=job.grammar.param) from error


def _resident(pid: int) -> int:
    """Bytes of memory a process holds; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
