"""The stamp: cheap when nothing was touched, right when something was."""

import os
from pathlib import Path

import pytest

from qwen_openai.models import stamp


@pytest.fixture
def stamped(tmp_path: Path) -> stamp.Stamp:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_bytes(b"content")
    (tmp_path / "b").write_bytes(b"")
    names = ("files/a", "b")
    hashes = [(name, stamp.sha256_of(tmp_path / name)) for name in names]
    made = stamp.stamp_files(tmp_path, hashes, "a test", "MIT")
    stamp.write(made, tmp_path)
    return made


def _ignore(_: int) -> None: ...


def test_it_is_read_back(tmp_path: Path, stamped: stamp.Stamp) -> None:
    assert stamp.read(tmp_path) == stamped
    assert stamped.size == 7
    assert stamp.is_intact(tmp_path, stamped)
    assert stamp.damaged(tmp_path, stamped, _ignore) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99, "files": []}'])
def test_what_is_no_stamp(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stamp.json").write_bytes(content)
    assert stamp.read(tmp_path) is None


def test_a_touched_file_is_hashed_and_stamped_anew(tmp_path: Path, stamped: stamp.Stamp) -> None:
    os.utime(tmp_path / "files" / "a", ns=(5, 5))
    assert stamp.is_intact(tmp_path, stamped)
    again = stamp.read(tmp_path)
    assert again is not None
    assert again.files[0].mtime_ns == 5


def test_a_changed_file(tmp_path: Path, stamped: stamp.Stamp) -> None:
    path = tmp_path / "files" / "a"
    kept = path.stat().st_mtime_ns
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(kept + 1, kept + 1))
    assert not stamp.is_intact(tmp_path, stamped)
    os.utime(path, ns=(kept, kept))
    assert stamp.is_intact(tmp_path, stamped)  # the price of being cheap; `pull` reads it all
    assert stamp.damaged(tmp_path, stamped, _ignore) == "files/a"


def test_a_missing_file(tmp_path: Path, stamped: stamp.Stamp) -> None:
    (tmp_path / "b").unlink()
    assert not stamp.is_intact(tmp_path, stamped)
    assert stamp.damaged(tmp_path, stamped, _ignore) == "b"
