"""What was made of a GGUF is kept once, whole or not at all."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from qwen_openai.errors import StartupError
from qwen_openai.models import layout
from qwen_openai.models.checkpoint import Checkpoint
from qwen_openai.models.dequantise import dequantised
from qwen_openai.models.store import ModelFiles
from tests.models.conftest import Told
from tests.models.dequantise import as_gguf
from tests.models.dequantise.made import files_of, left_in, numbers_of_made


def _made_at(checkpoint: Checkpoint) -> int:
    return (checkpoint.folder / "config.json").stat().st_ino


def test_what_was_made_is_taken_as_it_is(files: ModelFiles, home: Path, told: Told) -> None:
    first = dequantised(files, home, told)
    assert dequantised(files, home, again := Told()) == first
    assert not again.labels
    # A file that was touched, and is the same, is taken too.
    (first.folder / "model.safetensors").touch()
    assert dequantised(files, home, again) == first
    assert not again.labels
    assert not list((home / "partial").iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "stamp.json").write_text("{"),
        lambda folder: (folder / "tokenizer.json").write_bytes(b"{}"),
        lambda folder: _turn_a_bit(folder / "model.safetensors"),
        lambda folder: _cut(folder / "model.safetensors"),
    ],
    ids=["no config", "no stamp", "another tokenizer", "a bit turned", "cut off"],
)
def test_what_is_damaged_is_made_again(
    damage: Callable[[Path], object], files: ModelFiles, home: Path, told: Told
) -> None:
    first = dequantised(files, home, told)
    before = numbers_of_made(first)
    damage(first.folder)
    again = dequantised(files, home, told)
    assert again == first
    assert told.notes == [f"{first.folder} is damaged; it is made again."]
    assert all(
        np.array_equal(numbers, before[name]) for name, numbers in numbers_of_made(again).items()
    )
    assert dequantised(files, home, told) == first
    assert len(told.labels) == 2


def _turn_a_bit(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def test_another_file_at_the_same_path_is_made_anew(
    files: ModelFiles, tmp_path: Path, home: Path, told: Told
) -> None:
    first = dequantised(files, home, told)
    tensors = as_gguf.tensors_of(as_gguf.tiny_of("qwen2", tied=True))
    second = dequantised(
        files_of(tmp_path, home, as_gguf.metadata_of("qwen2"), tensors), home, told
    )
    assert second.folder != first.folder
    assert list((home / "dequantised").iterdir()) == [second.folder]
    assert "lm_head.weight" not in numbers_of_made(second)


def test_what_a_killed_process_left_is_in_nobodys_way(
    files: ModelFiles, home: Path, told: Told
) -> None:
    first = dequantised(files, home, told)
    partial = layout.partial_folder(first.folder, home)
    first.folder.rename(partial)
    (partial / "rest.safetensors").write_bytes(b"rest")
    # Of the file as it was before, and of another one, which somebody may be making now.
    where, _, state = partial.name.partition("--")[2].partition("-")
    before = partial.with_name(f"dequantised--{where}-{state[::-1]}-1")
    other = partial.with_name(f"dequantised--{where[::-1]}-{state}")
    before.mkdir()
    other.mkdir()
    again = dequantised(files, home, told)
    assert again == first
    assert list(partial.parent.iterdir()) == [other]
    assert not (again.folder / "rest.safetensors").exists()


def test_a_second_process_waits_and_takes_what_the_first_made(
    files: ModelFiles, home: Path, told: Told
) -> None:
    first = dequantised(files, home, told)
    apart = first.folder.with_name("apart")
    first.folder.rename(apart)
    waits = threading.Event()

    class Waiting(Told):
        def note(self, sentence: str) -> None:
            super().note(sentence)
            waits.set()

    waiting, found = Waiting(), list[Checkpoint]()
    thread = threading.Thread(target=lambda: found.append(dequantised(files, home, waiting)))
    with FileLock(layout.lock_file(first.folder, home)):
        thread.start()
        assert waits.wait(30)
        apart.rename(first.folder)
    thread.join(30)
    assert found == [first]
    assert waiting.notes == ["Another process is dequantising tiny; waiting for it."]
    assert not waiting.labels


def test_too_small_a_disk_is_one_sentence(files: ModelFiles, home: Path, told: Told) -> None:
    with pytest.raises(StartupError, match=r"The weights of tiny, .* need 0\.05 GB in") as caught:
        dequantised(files, home, told, free_space=lambda folder: 10**6)
    assert str(home) in caught.value.message
    assert "0.00 GB are free" in caught.value.message
    assert "QWEN_OPENAI_HOME" in caught.value.fix
    assert not told.labels
    assert not left_in(home)


def test_a_cache_folder_that_cannot_be_written_is_one_sentence(
    files: ModelFiles, home: Path, told: Told
) -> None:
    (home / "dequantised").write_text("in the way")
    with pytest.raises(StartupError, match="cannot be kept in") as caught:
        dequantised(files, home, told)
    assert "QWEN_OPENAI_HOME" in caught.value.fix


def test_weights_that_went_away_are_one_sentence(files: ModelFiles, home: Path, told: Told) -> None:
    files.weights.unlink()
    with pytest.raises(StartupError, match=r"tiny\.gguf"):
        dequantised(files, home, told)
