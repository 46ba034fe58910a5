"""Settings loaded again: when asked to, when the file changes, all or nothing, and what is said."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from qwen_openai.errors import StartupError
from qwen_openai.reloading import Reload, Reloader, Terminal
from qwen_openai.settings import Settings, load, look_at
from qwen_openai.settings.changes import Look
from tests.live import until


@pytest.fixture(autouse=True)
def _every_line() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        cache_logger_on_first_use=False,
    )
    yield
    structlog.configure(**before)


class Applied:
    """A gateway that remembers what it was told."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.times = 0
        self.failure: Exception | None = None

    async def apply(self, settings: Settings) -> None:
        if self.failure is not None:
            raise self.failure
        self.settings = settings
        self.times += 1


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.toml"
    file.write_text('engine = "upstream"\nupstreams = ["http://a:1"]\n', encoding="utf-8")
    return file


@dataclass
class Watched:
    """A reloader that looks all the time, what it has told whom, and how often it has looked."""

    gateway: Applied
    said: Sequence[Mapping[str, Any]]
    looks: int = 0

    def look(self, path: Path) -> Look | None:
        self.looks += 1
        return look_at(path)

    async def more_looks(self) -> None:
        """Wait until a change that was there before must have been seen."""
        enough = self.looks + 5
        await until(lambda: self.looks >= enough)


@asynccontextmanager
async def watching(config: Path | None) -> AsyncIterator[tuple[Reloader, Watched]]:
    loaded = load({"port": "7000"}, environ={}, config=config)
    reload = Reload(config, lambda: loaded.again().settings) if config else None
    with capture_logs() as said:
        watched = Watched(Applied(loaded.settings), said)
        reloader = Reloader(watched.gateway, reload, every=0.01, settled=0.01, look=watched.look)
        task = asyncio.create_task(reloader.watch())
        try:
            yield reloader, watched
        finally:
            task.cancel()
            await asyncio.wait([task])


def _write(config: Path, text: str) -> None:
    config.write_text(text, encoding="utf-8")


def _replace(config: Path, text: str) -> None:
    """As vim, sed -i and Kubernetes do it: a new file takes the place of the old one."""
    config.with_suffix(".new").write_text(text, encoding="utf-8")
    config.with_suffix(".new").replace(config)


def _remove(config: Path) -> None:
    config.unlink()


def _remove_and_write(config: Path, text: str) -> None:
    _remove(config)
    _write(config, text)


@pytest.mark.parametrize("how", [_write, _replace, _remove_and_write])
async def test_a_changed_file_is_taken(how: Callable[[Path, str], None], config: Path) -> None:
    async with watching(config) as (_, watched):
        how(config, 'engine = "upstream"\nupstreams = ["http://a:1", "http://b:2"]\nslots = 3\n')
        await until(lambda: bool(watched.said))
        await watched.more_looks()
    settings = watched.gateway.settings
    assert watched.gateway.times == 1
    assert [each.place for each in settings.upstreams] == ["a:1", "b:2"]
    assert settings.slots is None  # an engine has its slots
    assert settings.port == 7000  # a flag, which beats any file
    assert watched.said == [
        {
            "event": "settings reloaded",
            "log_level": "warning",
            "config": str(config),
            "changed": ["upstreams"],
            "needs_restart": ["slots"],
        }
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("upstreams = [", "is not valid TOML"),
        ('upstreams = [{url = "http://u:hunter2@a"}]', "'upstreams' cannot be what it is"),
        ("requests_per_minute = 0", "greater than or equal to 1"),
        ("upstream = []", "Did you mean 'upstreams'?"),
    ],
)
async def test_an_invalid_file_changes_nothing_and_is_one_line(
    text: str, reason: str, config: Path
) -> None:
    async with watching(config) as (_, watched):
        before = watched.gateway.settings
        _write(config, text)
        await until(lambda: bool(watched.said))
        await watched.more_looks()
        assert watched.gateway.settings is before
        (line,) = watched.said
        assert (line["event"], line["log_level"]) == ("settings not reloaded", "error")
        assert reason in line["reason"]
        assert "hunter2" not in str(line)
        _write(config, "requests_per_minute = 5\n")
        await until(lambda: watched.gateway.settings.requests_per_minute == 5)


async def test_what_stays_the_same_is_not_applied(config: Path) -> None:
    async with watching(config) as (reloader, watched):
        reloader.ask()
        await until(lambda: bool(watched.said))
    assert watched.gateway.times == 0
    assert [line["changed"] + line["needs_restart"] for line in watched.said] == [[]]


async def test_a_file_that_is_gone_is_waited_for_unless_asked(config: Path) -> None:
    async with watching(config) as (reloader, watched):
        _remove(config)
        await watched.more_looks()
        assert watched.said == []
        reloader.ask()
        await until(lambda: bool(watched.said))
        assert "cannot be read" in watched.said[0]["reason"]
        _write(config, "token_timeout = 7\n")
        await until(lambda: watched.gateway.settings.token_timeout == 7)


async def test_without_a_file_there_is_nothing_to_load() -> None:
    async with watching(None) as (reloader, watched):
        reloader.ask()
        await until(lambda: bool(watched.said))
    assert watched.gateway.times == 0
    assert [line["event"] for line in watched.said] == [
        "nothing to reload: the server was started without --config"
    ]


@pytest.mark.parametrize("failure", [StartupError("No.", fix="Yes."), RuntimeError("hunter2")])
async def test_a_failure_to_apply_is_not_the_end(failure: Exception, config: Path) -> None:
    async with watching(config) as (reloader, watched):
        watched.gateway.failure = failure
        _write(config, "affinity_gap = 1\n")
        await until(lambda: bool(watched.said))
        assert watched.said[0]["event"] == "settings not reloaded"
        assert "hunter2" not in str(watched.said)
        watched.gateway.failure = None
        reloader.ask()
        await until(lambda: watched.gateway.settings.affinity_gap == 1)


def test_a_terminal_that_is_there_is_not_gone() -> None:
    assert not Terminal().is_gone()


_HUNG_UP = """
import os, signal, sys
from qwen_openai.reloading import Terminal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it: nohup does
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
pid, master = os.forkpty()
if pid == 0:
    terminal = Terminal()
    before = terminal.is_gone()
    os.write(1, b"x")
    signal.sigwait([signal.SIGHUP])
    os._exit(10 * before + terminal.is_gone())
os.read(master, 1)
os.close(master)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_terminal_that_was_closed_is_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HUNG_UP], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "1\n"
