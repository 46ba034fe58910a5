"""A scripted engine: what it answers, when, and how it fails is decided by the test or example.

It keeps the contract of `base.Engine` exactly and loads nothing. A token is a whitespace-separated
word (or a character). It knows nothing of templates or tokenizers.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from qwen_openai.core import Event, Finish, FinishReason, Job, Message, Started, Text
from qwen_openai.engines.base import EngineInfo, Health
from qwen_openai.errors import ContextLengthExceeded, EngineFailed, EngineUnavailable

Step = str | asyncio.Event | float | Exception
"""One step of a script: emit a token, wait for an event, sleep some seconds, or raise."""

Script = Callable[[Job], Iterable[Step]]

_WORD = re.compile(r"\s*\S+|\s+$")
_KEPT_JOBS = 1024


def echo(job: Job) -> Iterable[Step]:
    """Answer with the last user message, word by word."""
    for message in reversed(job.messages):
        if message.role == "user":
            return _WORD.findall(message.content)
    return ()


def reply(*texts: str) -> Script:
    """Answer with fixed texts, word by word: each job gets the next one, and round again."""
    given = 0

    def script(job: Job) -> Iterable[Step]:
        nonlocal given
        text = texts[given % len(texts)]
        given += 1
        return _WORD.findall(text)

    return script


@dataclass(slots=True)
class Record:
    """What happened to the jobs so far. ``open`` is how many run now, ``peak`` the most at once."""

    started: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    open: int = 0
    peak: int = 0


@dataclass(frozen=True, slots=True)
class _Fitted:
    prompt_tokens: int
    limit: int
    changes: tuple[str, ...]


class FakeEngine:
    """Runs a script for every job.

    `Started` comes right before the first token, so an error or a wait at the head of a script
    happens before any event. A script that ends is finished with `stop`; one that would pass the
    job's limit is cut with `length`. There is no stop token: `completion_tokens` is the number of
    steps emitted. ``yield_every`` gives the loop a turn every so many tokens (0: never), for
    benchmarks that must not starve other tasks.
    """

    def __init__(
        self,
        script: Script = echo,
        *,
        context: int = 8192,
        slots: int = 4,
        count_by: Literal["words", "characters"] = "words",
        default_max_tokens: int = 4096,
        yield_every: int = 0,
    ) -> None:
        self.script = script
        self.record = Record()
        self.jobs: deque[Job] = deque(maxlen=_KEPT_JOBS)
        self._context = context
        self._slots = slots
        self._count_by = count_by
        self._default_max_tokens = default_max_tokens
        self._yield_every = yield_every
        self._health = Health(False, "not started")
        self._closing = asyncio.Event()

    async def start(self) -> None:
        """Become ready."""
        self._closing.clear()
        self._health = Health(True, "ready")

    def set_health(self, ready: bool, detail: str = "set by the test") -> None:
        """Switch what `health` says; while not ready, new jobs are refused."""
        self._health = Health(ready, detail)

    def health(self) -> Health:
        return self._health

    def info(self) -> EngineInfo:
        return EngineInfo(
            engine="fake", model="fake", device="none", context=self._context, slots=self._slots
        )

    async def aclose(self) -> None:
        """Fail the jobs in flight and refuse new ones."""
        self._health = Health(False, "closed")
        self._closing.set()

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run the script on one job. Raises what the script raises, ContextLengthExceeded,
        EngineUnavailable while not ready, EngineFailed when closed midway."""
        if not self._health.ready:
            raise EngineUnavailable(f"The engine is not ready: {self._health.detail}.")
        fitted = self._fit(job)
        self._begin(job)
        index, limit, every = job.choice, fitted.limit, self._yield_every
        started = Started(index, fitted.prompt_tokens, changes=fitted.changes)
        reason: FinishReason = "stop"
        emitted = 0
        try:
            for step in self.script(job):
                if not isinstance(step, str):
                    await self._act(step)
                    continue
                if emitted == 0:
                    yield started
                elif emitted == limit:
                    reason = "length"
                    break
                emitted += 1
                yield Text(index, step)
                if every and emitted % every == 0:
                    await self._act(0.0)
            if emitted == 0:
                yield started
        except (GeneratorExit, asyncio.CancelledError):
            self._end("cancelled")
            raise
        except BaseException:
            self._end("failed")
            raise
        self._end("finished")
        yield Finish(index, reason, emitted)

    def _begin(self, job: Job) -> None:
        self.jobs.append(job)
        self.record.started += 1
        self.record.open += 1
        self.record.peak = max(self.record.peak, self.record.open)

    def _end(self, outcome: Literal["finished", "cancelled", "failed"]) -> None:
        self.record.open -= 1
        match outcome:
            case "finished":
                self.record.finished += 1
            case "cancelled":
                self.record.cancelled += 1
            case "failed":
                self.record.failed += 1

    async def _act(self, step: asyncio.Event | float | Exception) -> None:
        """Do a step that is not a token. Closing the engine ends every wait."""
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float) and step <= 0:
            await asyncio.sleep(0)
        else:
            pause = step.wait() if isinstance(step, asyncio.Event) else asyncio.sleep(step)
            waits = [asyncio.ensure_future(pause), asyncio.ensure_future(self._closing.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if self._closing.is_set():
            raise EngineFailed("The engine was stopped while it answered.")

    def _count(self, messages: Iterable[Message]) -> int:
        if self._count_by == "characters":
            return sum(len(message.content) for message in messages)
        return sum(len(message.content.split()) for message in messages)

    def _fit(self, job: Job) -> _Fitted:
        """Apply the job's limits, as `prompting.prepare` does for a real engine."""
        window = min(self._context, job.max_total or self._context)
        messages = list(job.messages)
        prompt, dropped = self._count(messages), 0
        while prompt >= window and job.drop_oldest_pairs:
            pair = _oldest_pair(messages)
            if pair is None:
                break
            del messages[pair : pair + 2]
            prompt, dropped = self._count(messages), dropped + 1
        if prompt >= window:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {window} tokens. However, your messages "
                f"resulted in {prompt} tokens, and the answer needs at least one more. Please "
                "reduce the length of the messages.",
                param="messages",
            )
        room, asked = window - prompt, job.sampling.max_tokens
        changes = []
        if dropped:
            changes.append(f"history: dropped {dropped} oldest pair{'s' if dropped > 1 else ''}")
        defaulted = job.drop_oldest_pairs and job.max_total is None
        if asked is not None and asked > room and not defaulted:
            changes.append(f"max_tokens clamped to {room}")
        unasked = room if job.max_total is not None else self._default_max_tokens
        return _Fitted(prompt, min(asked or unasked, room), tuple(changes))


def _oldest_pair(messages: list[Message]) -> int | None:
    """Index of the first user turn that is followed by an answer, None when there is none."""
    for index in range(len(messages) - 2):
        if (messages[index].role, messages[index + 1].role) == ("user", "assistant"):
            return index
    return None
