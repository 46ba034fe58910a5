"""A pull in a process of its own, for tests that kill it: python -m tests.models.puller HOME JOB.

JOB is a pickled `Job`. Each thing told is a line on standard output; at `stop_at` bytes it stops
and waits to be killed.
"""

import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qwen_openai.errors import StartupError
from qwen_openai.models.catalogue import Entry
from qwen_openai.models.store import ModelFiles, PullOptions, Store


@dataclass(frozen=True)
class Job:
    model: str
    catalogue: tuple[Entry, ...]
    stop_at: int | None = None


@dataclass
class Telling:
    stop_at: int | None

    def start(self, total_bytes: int, label: str) -> None:
        _say(f"start {label}")

    def advance(self, done_bytes: int) -> None:
        if self.stop_at is not None and done_bytes >= self.stop_at:
            _say(f"stopped {done_bytes}")
            signal.pause()

    def note(self, sentence: str) -> None:
        _say(f"note {sentence}")

    def done(self) -> None: ...


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def start(job: Job, home: Path, scratch: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a pull; it is killed, if it still runs, when the block ends."""
    pickled = scratch / "job.pickle"
    pickled.write_bytes(pickle.dumps(job))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.models.puller", str(home), str(pickled)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: "subprocess.Popen[str]", beginning: str) -> str:
    """Return the first line that begins so; fails when the process ends before."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        if line.startswith(beginning):
            return line.strip()
        seen.append(line)
    raise AssertionError(f"the pull ended without {beginning!r}: {seen}")


def main() -> None:
    job: Job = pickle.loads(Path(sys.argv[2]).read_bytes())
    store = Store(Path(sys.argv[1]), catalogue=job.catalogue)
    try:
        found = store.pull(job.model, PullOptions(), Telling(job.stop_at))
    except StartupError as error:
        _say(f"error {error.message}")
        sys.exit(1)
    _say(f"pulled {found.weights if isinstance(found, ModelFiles) else found.folder}")


if __name__ == "__main__":
    main()
