"""One thread that loads a model and then answers one job at a time; its events cross to the loop.

The way across is bounded: a reader who is slow holds the thread up, a reader who leaves stops it at
its next step. No reader waits for a thread that is dead, or that has hung for too long. It knows
jobs and events, nothing of models: what loads and what answers are given.
"""

import asyncio
import contextlib
import gc
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from qwen_openai.core import Event, Finish, Job, Text
from qwen_openai.engines.base import EngineInfo
from qwen_openai.engines.torch_model.failures import Failure, empty_cache, explain
from qwen_openai.engines.torch_model.jobs import Tokens
from qwen_openai.errors import ApiError, EngineFailed, EngineUnavailable

THREAD_NAME = "qwen-chat"

# Events that may wait for a slow reader before the thread pauses.
_WAITING_EVENTS = 256

# Seconds after which a reader who hears nothing looks whether the thread is still to be waited for.
_LOOK_EVERY = 0.25

_DIED = "The engine's thread has ended. Restart the server."

Stopped = Callable[[], bool]
"""Says whether the reader has left, for work that cannot be stopped from outside. To ask is a sign
of life: a step that asks has not hung."""

Answerer = Callable[[Job, Stopped], Generator[Event, None, None]]
"""Runs one job: one Started, Text, one Finish, a step of the model for each `next`. A Text without
text and tokens only gives the thread a chance to stop. Closing it frees what the job held."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that can answer, and what there is to say of it and of its tokens."""

    info: EngineInfo
    answer: Answerer
    tokens: Tokens


class Answer:
    """The events of one job on their way from the thread to the generator that reads them.

    Make it in the reader's event loop. Methods are for the loop, but for `begin`, `put`, `end` and
    `is_left`, which the thread calls.
    """

    __slots__ = (
        "_begun",
        "_change",
        "_events",
        "_failure",
        "_hopeless",
        "_left",
        "_loop",
        "_over",
        "_waiter",
    )

    def __init__(self, hopeless: "Callable[[], ApiError | None]") -> None:
        """``hopeless`` says why the thread is not to be waited for, where that is so."""
        self._hopeless = hopeless
        self._loop = asyncio.get_running_loop()
        self._change = threading.Condition()
        self._events: deque[Event] = deque()
        self._failure: ApiError | None = None
        self._begun = self._left = self._over = False
        self._waiter: asyncio.Future[None] | None = None

    def begin(self) -> bool:
        """Take the job; False when its reader has left already."""
        with self._change:
            self._begun = not self._left
            return self._begun

    def is_left(self) -> bool:
        return self._left

    def put(self, event: Event) -> bool:
        """Hand an event over, waiting while too many wait; False when nobody will read it."""
        with self._change:
            while len(self._events) >= _WAITING_EVENTS and not self._left:
                self._change.wait()
            if not self._left:
                self._events.append(event)
                self._wake()
            return not self._left

    def end(self, failure: ApiError | None) -> None:
        """The thread works for this job no more."""
        with self._change:
            self._failure = self._failure or failure
            self._over = True
            self._wake()

    async def next(self) -> Event:
        """The next event, waiting for it. Raises the failure that ended the job, or what makes it
        hopeless to wait."""
        while True:
            with self._change:
                if self._events:
                    self._change.notify()
                    return self._events.popleft()
                if self._failure is not None:
                    raise self._failure
                if self._over:
                    raise EngineFailed("The model ended an answer early. Send the request again.")
            failure = self._hopeless()
            if failure is not None:
                raise failure
            await self._changed()

    def leave(self, failure: ApiError | None = None) -> None:
        """Stop the work. With a ``failure`` there is still a reader, who is to be told that."""
        with self._change:
            self._failure = self._failure or failure
            self._left = True
            if failure is None:
                self._events.clear()
            self._change.notify()
            self._wake()

    async def settled(self) -> None:
        """Wait until the thread does nothing more for this job: after `leave`, one step at most.
        Of a thread that is not to be waited for, return at once.

        Goes on waiting when cancelled, and raises CancelledError then."""
        cancelled = False
        while self._begun and not self._over and self._hopeless() is None:
            try:
                await self._changed()
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def _changed(self) -> None:
        """Wait until the thread has put or ended since the caller looked, or for a moment."""
        with self._change:
            if self._over or self._events:
                return
            waiter = self._waiter = self._loop.create_future()
        await asyncio.wait((waiter,), timeout=_LOOK_EVERY)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            # RuntimeError: the loop is closed, and its readers are gone with it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class Worker:
    """The thread. ``load`` runs first in it; the model lives and dies there.

    A step that takes longer than ``stall_timeout`` seconds has hung: `hopeless` says so while it
    lasts. ``broken`` says why no job can run any more, where that is so."""

    def __init__(self, load: Callable[[], Loaded], stall_timeout: float) -> None:
        self._load = load
        self._stall_timeout = stall_timeout
        self._work: queue.SimpleQueue[tuple[Job, Answer] | None] = queue.SimpleQueue()
        self._loaded: Future[EngineInfo] = Future()
        self._log = structlog.get_logger("qwen_openai.engine")
        self._step_began: float | None = None
        self._ending = threading.Lock()
        self._ended = self._given_up = False
        self.broken: str | None = None
        # A daemon: a step that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._main, name=THREAD_NAME, daemon=True)

    async def start(self) -> EngineInfo:
        """Load; return what was loaded or raise what ``load`` raised."""
        self._loaded.set_running_or_notify_cancel()
        self._thread.start()
        return await asyncio.wrap_future(self._loaded)

    def submit(self, job: Job, answer: Answer) -> None:
        """Have a job answered after those submitted before it."""
        with self._ending:
            if not self._ended:
                self._work.put((job, answer))
                return
        answer.end(EngineFailed(self.broken or _DIED))

    def unfit(self) -> str | None:
        """Why it cannot answer now, if so: it is broken for good, or a step has hung so far."""
        if self.broken is not None:
            return self.broken
        if self._ended or not self._thread.is_alive():
            return _DIED
        began = self._step_began
        if began is not None and time.monotonic() - began > self._stall_timeout:
            return f"no progress for {self._stall_timeout:g} seconds"
        return None

    def hopeless(self) -> ApiError | None:
        """What to tell who waits for an answer, where waiting has no sense any more."""
        if self._given_up:
            return EngineUnavailable("The server is stopping.", retry_after=5)
        if not self._thread.is_alive():
            return EngineFailed(self.broken or _DIED)
        if self.broken is None and (reason := self.unfit()) is not None:
            return EngineFailed(
                f"The model has hung: {reason}. Whoever runs the server can restart it."
            )
        return None

    async def close(self, patience: float) -> None:
        """End the thread after its present step; gives up on it, and with it on all answers, after
        ``patience`` seconds, and at once if it has hung already.

        Loading cannot be stopped: it goes on behind us, and ends the thread when it is over."""
        self._work.put(None)
        try:
            if self._thread.ident is not None and self._loaded.done():
                hung = self.broken is None and self.unfit() is not None
                await asyncio.to_thread(self._thread.join, 0 if hung else patience)
        finally:
            self._given_up = True

    def _main(self) -> None:
        try:
            loaded = self._load()
        except BaseException as error:  # noqa: BLE001  # handed to whoever awaits the start
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(loaded.info)
        try:
            self._answer_all(loaded.answer)
        finally:
            self._fail_the_rest()
        del loaded
        _free()

    def _answer_all(self, answerer: Answerer) -> None:
        while (item := self._work.get()) is not None:
            job, answer = item
            if answer.begin():
                failure: ApiError | None = EngineFailed(_DIED)
                try:
                    failure = self._serve(answerer, job, answer)
                finally:
                    self._step_began = None
                    answer.end(failure)
            # Else the last answer would live on while the thread waits for the next job.
            del item, job, answer

    def _fail_the_rest(self) -> None:
        """Nobody may wait for a thread that has ended, whatever ended it."""
        with self._ending:
            self._ended = True
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._work.get_nowait()
                if item is not None:
                    item[1].end(EngineFailed(self.broken or _DIED))

    def _serve(self, answerer: Answerer, job: Job, answer: Answer) -> ApiError | None:
        """Run one job to its end, whatever that is; return what its reader must be told."""
        if self.broken is not None:
            return EngineFailed(self.broken)

        def stopped() -> bool:
            self._step_began = time.monotonic()
            return answer.is_left()

        # From here on all that the thread does is a step, closing what a job held included.
        self._step_began = time.monotonic()
        try:
            with contextlib.closing(answerer(job, stopped)) as events:
                self._run(events, answer)
        except ApiError as error:
            return error
        except BaseException as error:  # noqa: BLE001  # the thread's edge: it must outlive every
            failure = self._told(error)  # job, and a model's own code may raise SystemExit
        else:
            return None
        # Only here is the error gone, and with its frames the tensors that they held.
        if failure.memory:
            _free()
        self.broken = failure.broken
        return EngineFailed(failure.sentence)

    def _run(self, events: Generator[Event, None, None], answer: Answer) -> None:
        while not answer.is_left():
            self._step_began = time.monotonic()
            event = next(events, None)
            if event is None:
                return
            if isinstance(event, Text) and not event.text and not event.tokens:
                continue
            # A slow reader is no step.
            self._step_began = None
            wanted = answer.put(event)
            self._step_began = time.monotonic()
            if not wanted or isinstance(event, Finish):
                return

    def _told(self, error: BaseException) -> Failure:
        """Where it broke goes to the log, without the message: that may quote the request."""
        failure = explain(error)
        frames = traceback.extract_tb(error.__traceback__)
        # A log that nobody can write to, such as a closed pipe, is no reason to stop answering.
        with contextlib.suppress(Exception):
            self._log.error(
                "generation failed",
                error=type(error).__name__,
                frames=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            )
        return failure


def _free() -> None:
    """Give memory back. A device that refuses that is found broken by the next step."""
    gc.collect()
    with contextlib.suppress(Exception):
        empty_cache()
