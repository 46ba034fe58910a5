"""The process that compiles grammars for `check`: start it, ask it, end it.

Its standard input is a pipe that ends when this process ends, however that comes about, and it with
it. Knows how rules travel, not what they are.
"""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path

_START = 20.0  # seconds for an interpreter on a busy machine
_LONGEST_ANSWER = 64 * 1024

# What an interpreter may need of our environment; a key is among the rest of it.
_KEPT = frozenset(
    {
        *("HOME", "LANG", "LC_ALL", "PATH", "PYTHONHOME", "TMPDIR"),
        *("DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH"),
    }
)


class Child:
    """One run of `compiler`. Make one with `start`; ask one thing at a time."""

    def __init__(self, process: Process) -> None:
        self.pid = process.pid
        self._process = process

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet, as far as is known."""
        return self._process.returncode is None

    @classmethod
    async def start(cls, memory: int) -> "Child | None":
        """Start a child with an address space of `memory` bytes and wait until it is ready. None
        where it cannot be started."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "qwen_openai.grammars.compiler",
                str(memory),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env=environment(os.environ),
                start_new_session=True,
            )
        except OSError:
            return None
        self = cls(process)
        try:
            ready = await self._answer(_START)
        except BaseException:
            await self.end()
            raise
        if ready is None:
            await self.end()
            return None
        return self

    async def ask(self, rules: bytes, timeout: float) -> str | None:
        """Return what is wrong with some rules, "" for nothing; None where the child ended or gave
        no answer within `timeout` seconds, whereupon it is of no more use."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101  # started with a pipe
        try:
            stdin.write(len(rules).to_bytes(4, "big") + rules)
            await stdin.drain()
        except (ConnectionError, OSError):
            return None
        return await self._answer(timeout)

    async def _answer(self, timeout: float) -> str | None:
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101  # started with a pipe
        try:
            async with asyncio.timeout(timeout):
                size = int.from_bytes(await stdout.readexactly(4), "big")
                return (await stdout.readexactly(min(size, _LONGEST_ANSWER))).decode()
        except (TimeoutError, asyncio.IncompleteReadError):
            return None

    async def end(self) -> None:
        """Kill it and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        # Reads to the end and closes the pipes, so that nothing is left open behind it.
        await self._process.communicate()


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the little that the child gets of an environment, and where to find this package:
    with -P it does not look into the working directory."""
    kept = {name: value for name, value in environ.items() if name in _KEPT}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2])}
