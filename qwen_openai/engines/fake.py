"""A scripted engine: what it answers, when, and how it fails is decided by the test or example.

It keeps the contract of `base.Engine` and loads nothing, but holds no answer to a grammar: what is
scripted is what is said. A token is a word with the blanks before it (or a character). It knows
nothing of templates or tokenizers.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from qwen_openai.core import (
    Event,
    Finish,
    FinishReason,
    Job,
    Message,
    Sampling,
    Started,
    Text,
    Thinking,
    TokenLogprob,
    ToolSyntax,
)
from qwen_openai.engines.base import EngineInfo, Health
from qwen_openai.errors import (
    ContextLengthExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
)

Step = str | asyncio.Event | float | Exception
"""One step of a script: emit a token, wait for an event, sleep some seconds, or raise."""

Script = Callable[[Job], Iterable[Step]]

_WORD = re.compile(r"\s*\S+|\s+$")
_KEPT_JOBS = 1024
# What is written on when an answer may not end yet.
_FILLER = " and"
_OWN_LOGPROB = -0.25


class Model(TypedDict, total=False):
    """What model the engine plays. Unsaid: one without tools, thoughts or gaps to fill, named by no
    row of `families`. ``in_thought`` says that its prompts end inside a thought."""

    tools: ToolSyntax | None
    thinking: Thinking
    in_thought: bool
    fills_in: bool
    family: str
    refuses: frozenset[str]


def echo(job: Job) -> Iterable[Step]:
    """Answer with the last user message, or the raw prompt, word by word."""
    if job.prompt is not None:
        text = job.prompt.text
        return _WORD.findall(text) if isinstance(text, str) else [f" {id}" for id in text]
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


class _Words:
    """Words and their ids, given out in the order in which they are first asked for."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._words: list[str] = []

    def id_of(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = len(self._words)
            self._words.append(word)
        return self._ids[word]

    def word_of(self, id: int) -> str | None:
        return self._words[id] if 0 <= id < len(self._words) else None

    def of(self, ids: Iterable[int]) -> set[str]:
        """The words of those ids that stand for one."""
        return {word for id in ids if (word := self.word_of(id)) is not None}


class _Pen:
    """A script's steps, bent to what the sampling asks. ``stopped``: it ended at a stop token."""

    def __init__(self, script: Script, job: Job, words: _Words) -> None:
        self.stopped = False
        self._script = script
        self._job = job
        sampling, bias = job.sampling, job.sampling.logit_bias
        self._banned = words.of(id for id, weight in bias if weight <= -100)
        self._forced = words.of(id for id, weight in bias if weight >= 100)
        self._stops = words.of(sampling.stop_token_ids)

    def steps(self) -> Iterable[Step]:
        """The steps; the script's own where nothing is asked of them, which is twice as fast."""
        sampling = self._job.sampling
        words = self._banned or self._forced or self._stops
        if words or sampling.ignore_eos or sampling.min_tokens:
            return self._bent(sampling)
        return self._script(self._job)

    def _bent(self, sampling: Sampling) -> Iterator[Step]:
        written = 0
        for step in self._script(self._job):
            if not isinstance(step, str):
                yield step
                continue
            word = min(self._forced, default=step)
            if word in self._stops and written >= sampling.min_tokens:
                self.stopped = True
                return
            if word in self._banned or word in self._stops:
                continue
            written += 1
            yield word
        while sampling.ignore_eos or written < sampling.min_tokens:
            written += 1
            yield _FILLER


class FakeEngine:
    """Runs a script for every job.

    `Started` comes right before the first token, so an error or a wait at the head of a script
    happens before any event. A script that ends is finished with `stop`; one that would pass the
    job's limit is cut with `length`. There is no stop token of its own: `completion_tokens` is the
    number of steps emitted, and a stop of the caller's. ``yield_every`` gives the loop a turn every
    so many tokens (0: never), for benchmarks that must not starve other tasks.

    Of sampling it honours what a script can bend to: a step is a token, left out where
    ``logit_bias`` bans it, replaced by the one that +100 forces, and an end where it is one of
    ``stop_token_ids``; where the script ends too early for ``min_tokens`` or ``ignore_eos``, the
    answer goes on with " and". A step's logprob is -0.25, the alternatives are made up.
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
        **model: Unpack[Model],
    ) -> None:
        self.script = script
        self.record = Record()
        self.jobs: deque[Job] = deque(maxlen=_KEPT_JOBS)
        self._context = context
        self._slots = slots
        self._count_by = count_by
        self._default_max_tokens = default_max_tokens
        self._yield_every = yield_every
        self._model = model
        self._words = _Words()
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
        model = self._model
        return EngineInfo(
            engine="fake",
            model="fake",
            device="none",
            context=self._context,
            slots=self._slots,
            family=model.get("family", ""),
            tools=model.get("tools"),
            thinking=model.get("thinking", "never"),
            fills_in=model.get("fills_in", False),
            refuses=model.get("refuses", frozenset()),
        )

    async def aclose(self) -> None:
        """Fail the jobs in flight and refuse new ones."""
        self._health = Health(False, "closed")
        self._closing.set()

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run the script on one job. Raises what the script raises, ContextLengthExceeded,
        EngineUnavailable while not ready, EngineFailed when closed midway."""
        self._require_ready()
        fitted = self._fit(job)
        self._begin(job)
        index, limit, every = job.choice, fitted.limit, self._yield_every
        asked = job.sampling.logprobs
        started = self._started(job, fitted)
        reason: FinishReason = "stop"
        emitted = 0
        pen = _Pen(self.script, job, self._words)
        try:
            for step in pen.steps():
                if not isinstance(step, str):
                    await self._act(step)
                    continue
                if emitted == 0:
                    yield started
                elif emitted == limit:
                    reason = "length"
                    break
                emitted += 1
                yield Text(index, step, 1, () if asked is None else (_logprob(step, asked),))
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
        yield Finish(index, reason, emitted + pen.stopped)

    async def tokenize(self, job: Job) -> list[int]:
        """Return an id for each word of the prompt, the same word always the same."""
        self._require_ready()
        if job.prompt is not None and not isinstance(job.prompt.text, str):
            return list(job.prompt.text)
        return [self._words.id_of(word) for text in _texts(job) for word in self._split(text)]

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        """Return the words of ids that `tokenize` gave. Raises InvalidRequest for others."""
        words = [self._words.word_of(id) for id in ids]
        if None in words:
            raise InvalidRequest(f"{ids[words.index(None)]} is no token's id here.", param="tokens")
        return [word.encode() for word in words if word is not None]

    def _require_ready(self) -> None:
        if not self._health.ready:
            raise EngineUnavailable(f"The engine is not ready: {self._health.detail}.")

    def _started(self, job: Job, fitted: _Fitted) -> Started:
        opened = job.prompt is None and not job.continue_final_message
        in_thought = opened and self._model.get("in_thought", False)
        return Started(job.choice, fitted.prompt_tokens, 0, fitted.changes, in_thought)

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

    def _split(self, text: str) -> Sequence[str]:
        return text if self._count_by == "characters" else _WORD.findall(text)

    def _count(self, texts: Iterable[str]) -> int:
        return sum(len(self._split(text)) for text in texts)

    def _prompt_tokens(self, job: Job) -> int:
        if job.prompt is not None and not isinstance(job.prompt.text, str):
            return len(job.prompt.text)
        return self._count(_texts(job))

    def _fit(self, job: Job) -> _Fitted:
        """Apply the job's limits, as `prompting.prepare` does for a real engine."""
        window = min(self._context, job.max_total or self._context)
        messages = list(job.messages)
        prompt, dropped = self._prompt_tokens(job), 0
        while prompt >= window and job.drop_oldest_pairs:
            pair = _oldest_pair(messages)
            if pair is None:
                break
            del messages[pair : pair + 2]
            prompt = self._count(message.content for message in messages)
            dropped += 1
        if prompt >= window:
            what = "messages" if job.prompt is None else "prompt"
            raise ContextLengthExceeded(
                f"This model's maximum context length is {window} tokens. However, your {what} "
                f"resulted in {prompt} tokens, and the answer needs at least one more. Please "
                f"reduce the length of the {what}.",
                param=what,
            )
        room, asked = window - prompt, job.sampling.max_tokens
        changes = []
        if dropped:
            changes.append(f"history: dropped {dropped} oldest pair{'s' if dropped > 1 else ''}")
        defaulted = job.drop_oldest_pairs and job.max_total is None
        if asked is not None and asked > room and not defaulted:
            changes.append(f"max_tokens clamped to {room}")
        least = job.sampling.min_tokens
        unasked = room if job.max_total is not None else max(self._default_max_tokens, least)
        limit = min(asked or unasked, room)
        if least > limit:
            raise InvalidRequest(
                f"min_tokens is {least}, and the answer can have at most {limit} tokens here.",
                param="min_tokens",
            )
        return _Fitted(prompt, limit, tuple(changes))


def _texts(job: Job) -> list[str]:
    """The texts that make a job's prompt."""
    if job.prompt is None:
        return [message.content for message in job.messages]
    text = job.prompt.text
    return [*([text] if isinstance(text, str) else []), job.prompt.suffix or ""]


def _logprob(word: str, count: int) -> TokenLogprob:
    """A word's logprob, with itself and ``count`` - 1 made-up words as the likeliest."""
    own = TokenLogprob(word, word.encode(), _OWN_LOGPROB)
    others = [f"{word}~{rank}" for rank in range(1, count)]
    made_up = [
        TokenLogprob(other, other.encode(), -2.5 - rank / 2) for rank, other in enumerate(others)
    ]
    return TokenLogprob(word, own.raw, own.logprob, (own, *made_up)[:count])


def _oldest_pair(messages: list[Message]) -> int | None:
    """Index of the first user turn that is followed by an answer, None when there is none."""
    for index in range(len(messages) - 2):
        if (messages[index].role, messages[index + 1].role) == ("user", "assistant"):
            return index
    return None
