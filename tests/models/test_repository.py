"""Whole ModelScope repositories, single files of them, and models that lie anywhere on the disk."""

import json
import signal
from pathlib import Path

import pytest

from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import Checkpoint
from qwen_openai.models.store import PullOptions, Store, pull
from tests.models import puller, tiny
from tests.models.conftest import Told
from tests.models.qwen1 import tiny_qwen1
from tests.models.stand_in import StandIn

_MIB = 2**20
_CHAT = "Qwen/Qwen-7B-Chat"


@pytest.fixture
def chat_files() -> dict[str, bytes]:
    """A repository as Qwen's first ones are: no GGUF in it, code and pictures, two formats."""
    return tiny_qwen1.whole(shards=2) | {
        "README.md": b"# Qwen",
        "modeling_qwen.py": b"raise SystemExit('this was run')",
        "pytorch_model-00001-of-00001.bin": b"not needed",
        "assets/logo.jpg": b"a picture",
    }


def test_a_snapshot_of_weights_at_a_revision(
    hub: StandIn, home: Path, told: Told, chat_files: dict[str, bytes]
) -> None:
    hub.repositories[_CHAT] = {"v1.1.4": chat_files}
    found = Store(home).pull(_CHAT, PullOptions(revision="v1.1.4"), told)
    assert isinstance(found, Checkpoint)
    assert (found.name, found.raw, found.context_length) == (_CHAT, True, 128)
    got = {
        path.relative_to(found.folder).as_posix(): path.read_bytes()
        for path in found.folder.rglob("*")
        if path.is_file()
    }
    skipped = {"modeling_qwen.py", "pytorch_model-00001-of-00001.bin", "assets/logo.jpg"}
    assert got == {name: raw for name, raw in chat_files.items() if name not in skipped}
    assert found.folder == home / "modelscope" / _CHAT / "v1.1.4" / "files"
    assert told.labels[0] == f"{_CHAT}@v1.1.4"
    assert "3 files" in told.notes[0]
    # The tokenizer is there before the first start.
    assert len(list((home / "local").glob("*/*.json"))) == 1
    assert Store(home).locate(_CHAT) == found

    # A second pull reads every byte again and asks for none.
    asked = len(hub.sent)
    assert Store(home).pull(f"{_CHAT}@v1.1.4", PullOptions(), told) == found
    assert len(hub.sent) == asked
    assert told.labels[-1].startswith("Verifying")


def test_without_safetensors_the_older_format_is_fetched(
    hub: StandIn, home: Path, told: Told, chat_files: dict[str, bytes]
) -> None:
    older = {name: raw for name, raw in chat_files.items() if "safetensors" not in name}
    index = {"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
    older["pytorch_model.bin.index.json"] = json.dumps(index).encode()
    hub.repositories[_CHAT] = {"master": older}
    found = Store(home).pull(_CHAT, PullOptions(), told)
    assert isinstance(found, Checkpoint)
    assert found.weight_bytes == len(b"not needed")


def test_what_is_not_served_is_refused_before_its_weights_come(
    hub: StandIn, home: Path, told: Told, chat_files: dict[str, bytes]
) -> None:
    hub.repositories[_CHAT] = {
        "master": chat_files | {"config.json": b'{"model_type": "llama"}'},
    }
    with pytest.raises(StartupError, match="'llama', which is not served"):
        Store(home).pull(_CHAT, PullOptions(), told)
    assert [sent.file for sent in hub.sent] == ["config.json"]
    assert Store(home).locate(_CHAT) is None


def test_a_repository_without_a_model(hub: StandIn, home: Path, told: Told) -> None:
    hub.repositories[_CHAT] = {"master": {"README.md": b"#", "train.json": b"[]"}}
    with pytest.raises(StartupError, match=r"neither a GGUF file nor a config\.json"):
        Store(home).pull(_CHAT, PullOptions(), told)
    assert hub.sent == []


def test_one_file_that_is_no_model(
    hub: StandIn, home: Path, told: Told, chat_files: dict[str, bytes]
) -> None:
    hub.repositories[_CHAT] = {"master": chat_files}
    with pytest.raises(StartupError, match="no GGUF file") as caught:
        Store(home).pull(f"{_CHAT}/config.json", PullOptions(), told)
    assert caught.value.fix == f"Name the whole repository: {_CHAT}."


def test_a_folder_of_weights_is_used_in_place(home: Path, tmp_path: Path, told: Told) -> None:
    folder = tiny_qwen1.write(tmp_path / "my-qwen", tiny_qwen1.whole())
    before = sorted(folder.iterdir())
    found = Store(home).pull(str(folder), PullOptions(offline=True), told)
    assert isinstance(found, Checkpoint)
    assert (found.name, found.folder) == ("my-qwen", folder)
    assert sorted(folder.iterdir()) == before
    assert Store(home).locate(str(folder)) == found
    # A GGUF beside them is what was meant: it needs no torch.
    (folder / "my.gguf").write_bytes(tiny.gguf())
    assert tiny.files(Store(home).pull(str(folder), PullOptions(), told)).name == "my"


def test_a_folder_of_weights_that_is_not_complete(home: Path, tmp_path: Path, told: Told) -> None:
    folder = tiny_qwen1.write(tmp_path / "my-qwen", tiny_qwen1.whole(shards=2))
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert Store(home).locate(str(folder)) is None
    with pytest.raises(StartupError, match=r"missing \(model-00002"):
        Store(home).pull(str(folder), PullOptions(), told)


def test_a_snapshot_with_one_gguf_is_served(hub: StandIn, home: Path, told: Told) -> None:
    content = tiny.gguf()
    files = {"README.md": b"# Tiny", "tokenizer.json": b"{}", tiny.FILE: content}
    hub.repositories[tiny.REPOSITORY] = {"master": files}
    found = tiny.files(pull(tiny.REPOSITORY, home=home, options=PullOptions(), progress=told))
    assert found.name == tiny.REPOSITORY
    assert found.weights.read_bytes() == content
    # Ours, out of the GGUF, lies beside the repository's own and not over it.
    assert found.tokenizer.read_bytes() != b"{}"
    assert (found.weights.parent / "tokenizer.json").read_bytes() == b"{}"
    assert Store(home).locate(tiny.REPOSITORY) == found


def test_of_several_ggufs_one_must_be_named(hub: StandIn, home: Path, told: Told) -> None:
    content = tiny.gguf()
    hub.repositories[tiny.REPOSITORY] = {
        "master": {tiny.FILE: content, "tiny-q8.gguf": tiny.gguf(seed=1)}
    }
    with pytest.raises(StartupError, match="holds 2 GGUF files") as caught:
        pull(tiny.REPOSITORY, home=home, options=PullOptions(), progress=told)
    assert tiny.FILE in caught.value.fix
    assert hub.sent == []

    name = f"{tiny.REPOSITORY}/{tiny.FILE}"
    found = tiny.files(pull(name, home=home, options=PullOptions(), progress=told))
    assert found.weights.read_bytes() == content
    assert [sent.file for sent in hub.sent] == [tiny.FILE]
    assert Store(home).locate(name) == found


def test_without_a_revision_the_only_one_pulled_is_found(
    hub: StandIn, home: Path, told: Told
) -> None:
    files = {tiny.FILE: tiny.gguf()}
    hub.repositories[tiny.REPOSITORY] = {"v1": files, "v2": files}
    store = Store(home)
    first = tiny.files(store.pull(f"{tiny.REPOSITORY}@v1", PullOptions(), told))
    assert store.locate(tiny.REPOSITORY) == first
    store.pull(tiny.REPOSITORY, PullOptions(revision="v2"), told)
    assert store.locate(tiny.REPOSITORY) is None
    assert store.locate(tiny.REPOSITORY, "v1") == first


def test_a_killed_snapshot_goes_on(hub: StandIn, home: Path, tmp_path: Path, told: Told) -> None:
    files = tiny_qwen1.whole() | {"big.json": tiny.gguf(size=5 * _MIB)}
    hub.repositories[_CHAT] = {"master": files}
    hub.hold, hub.hold_after = "big", 3 * _MIB
    with puller.start(puller.Job(_CHAT, (), stop_at=2 * _MIB), home, tmp_path) as process:
        puller.wait_for(process, "stopped")
        process.send_signal(signal.SIGKILL)
        process.wait()
    hub.go_on.set()
    hub.sent.clear()

    found = Store(home).pull(_CHAT, PullOptions(), told)
    assert isinstance(found, Checkpoint)
    assert (found.folder / "big.json").read_bytes() == files["big.json"]
    assert [(sent.file, sent.begin >= 2 * _MIB) for sent in hub.sent if sent.count > _MIB] == [
        ("big.json", True)
    ]


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/outside", "a/../../outside", "a\\b", "C:outside", "", "a//b"]
)
def test_a_listing_that_leads_outside_is_refused(
    hub: StandIn, home: Path, told: Told, path: str
) -> None:
    hub.repositories[_CHAT] = {"master": {path: b"x"}}
    hub.listing = [{"Path": path, "Size": 1, "Sha256": "", "Type": "blob"}]
    with pytest.raises(StartupError, match="its listing names"):
        Store(home).pull(_CHAT, PullOptions(), told)
    assert hub.sent == []


def test_no_space_for_a_snapshot(
    hub: StandIn, home: Path, told: Told, chat_files: dict[str, bytes]
) -> None:
    hub.repositories[_CHAT] = {"master": chat_files}
    store = Store(home, free_space=lambda _: 1_000_000)
    with pytest.raises(StartupError, match="are free"):
        store.pull(_CHAT, PullOptions(), told)
    assert hub.sent == []


def test_a_repository_that_is_not_there(hub: StandIn, home: Path, told: Told) -> None:
    with pytest.raises(StartupError, match="could not be fetched") as caught:
        Store(home).pull("org/nothing", PullOptions(), told)
    assert "Check the model's name and revision" in caught.value.fix


def test_a_file_that_is_not_there(hub: StandIn, home: Path, told: Told) -> None:
    hub.repositories[_CHAT] = {"master": {"a.txt": b"x"}}
    with pytest.raises(StartupError, match=r"has no file 'b\.txt'") as caught:
        Store(home).pull(f"{_CHAT}/b.txt", PullOptions(), told)
    assert "a.txt" in caught.value.fix


def test_a_repository_offline(home: Path, told: Told) -> None:
    with pytest.raises(StartupError, match="--offline"):
        Store(home).pull(_CHAT, PullOptions(offline=True), told)


def test_a_repository_without_network(home: Path, told: Told) -> None:
    with pytest.raises(StartupError, match="cannot be reached"):
        Store(home).pull(_CHAT, PullOptions(), told)


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_local_file_is_used_in_place(
    home: Path, tmp_path: Path, told: Told, as_folder: bool
) -> None:
    weights = tmp_path / "mine" / "my-model.gguf"
    weights.parent.mkdir()
    weights.write_bytes(tiny.gguf())
    model = str(weights.parent if as_folder else weights)
    store = Store(home)
    assert store.locate(model) is None

    found = tiny.files(store.pull(model, PullOptions(offline=True), told))
    assert (found.name, found.weights) == ("my-model", weights)
    assert found.tokenizer.is_relative_to(home)
    assert list(weights.parent.iterdir()) == [weights]
    assert store.locate(model) == found


def test_a_pull_of_a_local_file_describes_it_anew(home: Path, tmp_path: Path, told: Told) -> None:
    weights = tmp_path / "my.gguf"
    weights.write_bytes(tiny.gguf())
    found = tiny.files(Store(home).pull(str(weights), PullOptions(), told))
    whole = found.tokenizer.read_bytes()
    found.tokenizer.write_text("damaged")
    assert Store(home).pull(str(weights), PullOptions(), told) == found
    assert found.tokenizer.read_bytes() == whole


def test_a_local_file_that_changed_is_read_again(home: Path, tmp_path: Path, told: Told) -> None:
    weights = tmp_path / "my.gguf"
    weights.write_bytes(tiny.gguf())
    store = Store(home)
    store.pull(str(weights), PullOptions(), told)
    weights.write_bytes(tiny.gguf(size=70_000))
    assert store.locate(str(weights)) is None
    assert (
        tiny.files(store.pull(str(weights), PullOptions(), told)).description.weight_bytes == 70_000
    )
    assert len(list((home / "local").iterdir())) == 1


def test_a_local_file_that_is_no_model(home: Path, tmp_path: Path, told: Told) -> None:
    weights = tmp_path / "my.gguf"
    weights.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(StartupError, match="GGUF"):
        Store(home).pull(str(weights), PullOptions(), told)
    assert Store(home).locate(str(weights)) is None


@pytest.mark.parametrize("names", [[], ["a.gguf", "b.gguf"]])
def test_a_folder_without_exactly_one_model(
    home: Path, tmp_path: Path, told: Told, names: list[str]
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(tiny.gguf())
    with pytest.raises(StartupError, match=f"holds {len(names)} GGUF files"):
        Store(home).pull(str(folder), PullOptions(), told)
