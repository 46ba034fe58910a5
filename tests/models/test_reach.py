"""A host answers or it does not, and the user is told within two seconds."""

import socket
import time
from collections.abc import Iterator

import pytest

from qwen_openai.models.reach import PATIENCE, address_of, reachable


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes no connection and refuses none: its queue of one is full."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_a_host_that_listens(listener: socket.socket) -> None:
    assert reachable(f"http://127.0.0.1:{listener.getsockname()[1]}/any/path")


def test_a_host_that_refuses(closed_port: int) -> None:
    begun = time.monotonic()
    assert not reachable(f"http://127.0.0.1:{closed_port}")
    assert time.monotonic() - begun < PATIENCE


def test_a_host_that_is_silent(silent: int) -> None:
    begun = time.monotonic()
    assert not reachable(f"http://127.0.0.1:{silent}")
    assert time.monotonic() - begun < 5 * PATIENCE


@pytest.mark.parametrize("url", ["", "nonsense", "https://", "http://[::1", "http://a:99999/"])
def test_what_is_no_url_is_not_reachable(url: str) -> None:
    assert not reachable(url, patience=0.5)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://host.example/path", ("host.example", 443)),
        ("http://host.example", ("host.example", 80)),
        ("http://host.example:8080", ("host.example", 8080)),
    ],
)
def test_the_port_is_the_schemes(url: str, address: tuple[str, int]) -> None:
    assert address_of(url) == address


def test_a_proxy_stands_for_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example:3128")
    monkeypatch.setenv("http_proxy", "plain.example:8000")
    monkeypatch.setenv("no_proxy", "near.example")
    assert address_of("https://host.example") == ("proxy.example", 3128)
    assert address_of("http://host.example") == ("plain.example", 8000)
    assert address_of("https://near.example") == ("near.example", 443)
