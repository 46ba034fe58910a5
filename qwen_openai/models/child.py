"""Downloads run in child processes: this starts one, watches what it writes, leaves none behind.

A child keeps a downloader's memory, output and global state out of a gateway that pulls at its
first start. It is tethered (`tether.py`), so that it dies with this process even on SIGKILL. Knows
nothing of what the child downloads.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qwen_openai import settings
from qwen_openai.models.failure import SourceFailed

_TETHER = Path(__file__).with_name("tether.py")
_LOOK_EVERY = 0.1  # seconds between two looks at the folder: a smooth bar, for a stat a file
_OUTPUT_KEPT = 16 * 1024


@dataclass(frozen=True, slots=True)
class Task:
    """A module to run as ``python -m`` would.

    ``watch`` is the folder whose growth is progress; ``environment`` is added to ours
    (less the gateway's own settings); after ``stall`` seconds without growth the child is taken for
    hung.
    """

    module: str
    arguments: Sequence[str]
    watch: Path
    stall: float
    environment: Mapping[str, str] = field(default_factory=dict)
    interpreter: str = sys.executable


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit code, and the last 16 KiB of what it printed."""

    code: int
    output: str

    def last_line(self, prefix: str = "") -> str:
        """The last line printed that starts with ``prefix`` (without it), or the last of all."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        marked = [line.removeprefix(prefix).strip() for line in lines if line.startswith(prefix)]
        return (marked or lines or ["no reason given"])[-1]


def run(task: Task, on_growth: Callable[[int], None]) -> Ended:
    """Run ``task`` to its end, calling ``on_growth`` with the bytes below ``task.watch``.

    Raises SourceFailed when it hangs. Whatever ends this call, an interrupt too, ends the child.
    """
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(  # noqa: S603  # our own interpreter, and an argument list, no shell
            [task.interpreter, "-P", str(_TETHER), task.module, *task.arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**_environment(), "PYTHONUNBUFFERED": "1", **task.environment},
        )
        try:
            code = _watch(child, task, on_growth)
        finally:
            child.kill()
            child.communicate()
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - _OUTPUT_KEPT))
        return Ended(code, output.read().decode("utf-8", errors="replace"))


def _environment() -> dict[str, str]:
    """Our environment, less our own settings: no downloader needs them, and the key is one."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(settings.ENV_PREFIX)
    }


def _watch(child: subprocess.Popen[bytes], task: Task, on_growth: Callable[[int], None]) -> int:
    seen, seen_at = -1, time.monotonic()
    while True:
        try:
            return child.wait(_LOOK_EVERY)
        except subprocess.TimeoutExpired:
            size = folder_size(task.watch)
        if size != seen:
            seen, seen_at = size, time.monotonic()
            on_growth(size)
        elif time.monotonic() - seen_at > task.stall:
            raise SourceFailed(
                f"nothing arrived for {task.stall:.0f} seconds",
                fix="Run the command again; it goes on where it stopped.",
            )


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below ``folder``; files that vanish meanwhile count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total
