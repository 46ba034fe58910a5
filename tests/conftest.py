"""Fixtures for the whole suite."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvloop
from hypothesis import settings as hypothesis_settings

from qwen_openai.observe.logs import configure

_KEPT = {"QWEN_OPENAI_HOME", "QWEN_OPENAI_SHARED"}

# A shared machine's pauses are not failures of a property.
hypothesis_settings.register_profile("suite", deadline=None)
hypothesis_settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="run the long tests too, and others on all their data"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests to scripts/soak."""
    if config.getoption("--soak"):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether this run may take its time."""
    return bool(request.config.getoption("--soak"))


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Asynchronous tests run on the loop that `serve` uses, or on those that their mark names."""
    factories = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    marker = item.get_closest_marker("asyncio")
    named = marker.kwargs.get("loop_factories") if marker else None
    return factories if named else {"uvloop": factories["uvloop"]}


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts background jobs with Ctrl-C ignored, and the programs that tests start would
    inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    """Request lines would drown the reports; warnings and errors are shown."""
    configure(SimpleNamespace(log_level="warning", log_format="json"))


@pytest.fixture(scope="session")
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, _state_folder: Path) -> None:
    """No setting of the person who runs the tests reaches them, and nothing that they serve writes
    into that person's own database."""
    monkeypatch.setenv("XDG_STATE_HOME", str(_state_folder))
    for name in list(os.environ):
        if name.startswith("QWEN_OPENAI_") and name not in _KEPT:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden data and specifications; skips when absent, fails under CI."""
    root = Path(__file__).parent.parent
    folder = (root / os.environ.get("QWEN_OPENAI_SHARED", "../shared")).resolve()
    if not folder.is_dir():
        reason = f"no shared data at {folder} (set QWEN_OPENAI_SHARED)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
