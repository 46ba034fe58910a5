"""A cache folder, a ModelScope on loopback, and a pip that knows nothing but a local folder."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.models import stand_in


@dataclass
class Told:
    """A Progress that remembers. ``advances`` holds the bytes told in each phase."""

    labels: list[str] = field(default_factory=list)
    advances: list[list[int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    open: bool = False

    def start(self, total_bytes: int, label: str) -> None:
        assert not self.open
        self.open = True
        self.labels.append(label)
        self.advances.append([])

    def advance(self, done_bytes: int) -> None:
        assert self.open
        self.advances[-1].append(done_bytes)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def done(self) -> None:
        assert self.open
        self.open = False


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed_port: int) -> None:
    """By default no source answers; and nothing of the user's own settings or folders is used."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "MODELSCOPE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope-user"))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed_port}/simple")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[stand_in.StandIn]:
    """A ModelScope that answers, named as its users name one."""
    with stand_in.serve() as state:
        monkeypatch.delenv("MODELSCOPE_ENDPOINT")
        monkeypatch.setenv("MODELSCOPE_DOMAIN", state.url)
        yield state


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[stand_in.StandIn]:
    """A package index that answers, and that pip is configured to use."""
    with stand_in.serve() as state:
        monkeypatch.setenv("PIP_INDEX_URL", f"{state.url}/simple")
        yield state


@pytest.fixture
def wheelhouse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that pip is configured, by its user, to find wheels in, and nowhere else."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder
