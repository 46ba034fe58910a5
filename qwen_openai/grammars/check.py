"""Whether rules can be run, found out before an answer begins: in a child that may be killed.

One grammar at a time, within a time and a memory of its own; verdicts are remembered. The child is
started by the first grammar and ended when none came for a while. Knows nothing of what rules say.
"""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from qwen_openai.core import Grammar
from qwen_openai.errors import EngineUnavailable, InvalidRequest, Overloaded
from qwen_openai.grammars.child import Child

_TOO_COMPLEX = "it is too complex; ask for less"
# Of one remembered verdict beside its text: the hash and the entry.
_ENTRY_BYTES = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much checking may cost: seconds and bytes of address space for one grammar, bytes of its
    text, grammars that may wait, and seconds that each does; bytes of verdicts that are kept; after
    `idle` seconds without a grammar the child is ended."""

    timeout: float = 2.0
    memory: int = 1024 * 1024 * 1024
    size: int = 1024 * 1024
    queue: int = 64
    wait: float = 20.0
    cache: int = 1024 * 1024
    idle: float = 60.0


class Checker:
    """Ask `check` for each grammar, from any number of tasks of one event loop."""

    def __init__(self, *, timeout: float = 2.0, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds(timeout=timeout)
        self._verdicts = Verdicts(self._bounds.cache)
        self._running: dict[bytes, asyncio.Task[str | None]] = {}
        self._turn = asyncio.Lock()
        self._child: Child | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._resting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process, while there is one."""
        return None if self._child is None else self._child.pid

    async def check(self, grammar: Grammar) -> None:
        """Return if the grammar can be run.

        Raises InvalidRequest at its parameter where it cannot, Overloaded where too many others
        wait, EngineUnavailable where no child can be started.
        """
        raw = grammar.rules.encode("utf-8", "replace")
        if len(raw) > self._bounds.size:
            raise _invalid(grammar, _TOO_COMPLEX)
        key = hashlib.sha256(raw).digest()
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = await self._verdict(key, raw)
        if verdict:
            raise _invalid(grammar, verdict)

    async def aclose(self) -> None:
        """End the child. What is being checked meanwhile fails."""
        if self._idle is not None:
            self._idle.cancel()
        tasks = [*self._running.values(), *filter(None, [self._resting])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end_child()

    async def _verdict(self, key: bytes, raw: bytes) -> str:
        """Wait for a grammar's verdict. Whoever stops waiting does not stop the others who do."""
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= self._bounds.queue:
                raise _overloaded()
            task = asyncio.create_task(self._ask(key, raw))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key))
        try:
            verdict = await asyncio.wait_for(asyncio.shield(task), self._bounds.wait)
        except TimeoutError:
            raise _overloaded() from None
        if verdict is None:
            raise EngineUnavailable("Grammars cannot be checked at the moment. Try again.")
        return verdict

    async def _ask(self, key: bytes, raw: bytes) -> str | None:
        """Return the child's verdict, None where there is no child to ask."""
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            child = await self._living()
            if child is None:
                return None
            verdict = await child.ask(raw, self._bounds.timeout)
            if verdict is None:
                # Dead or hung. Not remembered: a busy machine may have been the reason.
                await self._end_child()
                return _TOO_COMPLEX
            self._verdicts.put(key, verdict)
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._bounds.idle, self._rest)
            return verdict

    async def _living(self) -> Child | None:
        if self._child is None or not self._child.alive:
            await self._end_child()
            self._child = await Child.start(self._bounds.memory)
        return self._child

    def _rest(self) -> None:
        self._resting = asyncio.create_task(self._end_idle())

    async def _end_idle(self) -> None:
        if not self._running:
            async with self._turn:
                await self._end_child()

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()


class Verdicts:
    """The latest verdicts by the hash of their rules, as many as fit into so many bytes."""

    def __init__(self, size: int) -> None:
        self.bytes = 0
        self._size = size
        self._kept: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> str | None:
        """Return a verdict, "" for a good one, None for none."""
        verdict = self._kept.get(key)
        if verdict is not None:
            self._kept.move_to_end(key)
        return verdict

    def put(self, key: bytes, verdict: str) -> None:
        """Keep a verdict, at the cost of those that were not asked for the longest time."""
        self._drop(key)
        self._kept[key] = verdict
        self.bytes += _cost(verdict)
        while self.bytes > self._size and self._kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        verdict = self._kept.pop(key, None)
        if verdict is not None:
            self.bytes -= _cost(verdict)


def _cost(verdict: str) -> int:
    return _ENTRY_BYTES + len(verdict)


def _invalid(grammar: Grammar, why: str) -> InvalidRequest:
    named, _, _ = grammar.param.partition(".")
    what = "grammar" if named == "structured_outputs" else "schema"
    return InvalidRequest(f"Invalid {what} for {named}: {why}.", param=grammar.param)


def _overloaded() -> Overloaded:
    return Overloaded("Too many grammars wait to be checked. Try again in a moment.")
