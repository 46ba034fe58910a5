"""Log lines whose reader is gone, slow or out of room; and secrets in what is left."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_openai.observe.outlet import Outlet, without_secrets


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(end)


def test_a_line_is_written_at_once(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1])
    assert outlet.write(b"one\n") == 4
    outlet.flush()
    assert os.read(pipe[0], 100) == b"one\n"


def test_a_reader_that_does_not_read_stops_nobody(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1], most_held=10_000)
    line = b"x" * 999 + b"\n"
    for _ in range(200):
        outlet.write(line)
    assert outlet.lost > 0
    got = bytearray()
    while len(got) < 60_000:
        got += os.read(pipe[0], 65_536)
    for _ in range(3):
        outlet.write(b"back\n")
        got += os.read(pipe[0], 65_536)
    assert got.replace(line, b"").endswith(b"back\n")
    assert b'"lines":%d' % outlet.lost in got


def test_a_long_line_arrives_whole(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1])
    line = bytes(range(97, 123)) * 400 + b"\n"
    outlet.write(line)
    got = bytearray()
    while len(got) < len(line):
        got += os.read(pipe[0], 65_536)
    assert got == line


def test_a_closed_pipe_and_a_closed_descriptor(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1])
    os.close(pipe[0])
    outlet.write(b"nobody reads\n")
    os.close(pipe[1])
    outlet.write(b"nobody can\n")
    assert outlet.lost == 0


def test_a_full_disk_holds_a_bounded_amount() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        outlet = Outlet(descriptor, most_held=1000)
        for _ in range(100):
            outlet.write(b"x" * 99 + b"\n")
        assert outlet.lost == 90
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (b"key sk-qwen-abcDEF0123_-x.", b"key [secret]."),
        (b"Authorization: Bearer abc.def-ghi, more", b"Authorization: Bearer [secret], more"),
        (b"GET /v1?api_key=abc&x=1", b"GET /v1?api_key=[secret]&x=1"),
        (b'{"u":"/v1?key=abc"}', b'{"u":"/v1?key=[secret]"}'),
        (b"hf_abcdefghij and AIzaSyABCDEFGH", b"[secret] and [secret]"),
        (b"task-12345678 req_0123456789 hf-internal-testing", None),
        (b"Send 'Authorization: Bearer KEY'.", None),
    ],
)
def test_what_looks_like_a_key_is_struck_out(line: bytes, left: bytes | None) -> None:
    assert without_secrets(line) == (line if left is None else left)
