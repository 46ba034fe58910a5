"""QwenChat by the name of a model that was pulled."""

import shutil
from pathlib import Path

import pytest

from qwen_openai import QwenChat
from qwen_openai.engines.torch_model.load import Loaded
from qwen_openai.errors import StartupError
from qwen_openai.models import stamp

NAME = "qwen/Qwen-7B-Chat"


def _pulled(folder: Path, home: Path) -> None:
    """Put a directory where `pull` would have put it, with the proof that it was verified."""
    place = home / "modelscope" / NAME / "master"
    shutil.copytree(folder, place / "files")
    hashes = [(f"files/{each.name}", stamp.sha256_of(each)) for each in (place / "files").iterdir()]
    stamp.write(stamp.stamp_files(place, hashes, "a test", None), place)


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_pulled_model_has_a_name(
    golden: Path,
    qwen1_loaded: Loaded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_variable: bool,
) -> None:
    _pulled(golden / "checkpoint", tmp_path)
    if by_variable:
        monkeypatch.setenv("QWEN_OPENAI_HOME", str(tmp_path))
    model = QwenChat.from_pretrained(NAME, home=None if by_variable else str(tmp_path))
    assert model.checkpoint.name == NAME
    reply, _ = model.chat(None, "hello", do_sample=False, max_new_tokens=4)
    wanted, _ = QwenChat(qwen1_loaded).chat(None, "hello", do_sample=False, max_new_tokens=4)
    assert reply == wanted


def test_a_name_that_was_not_pulled(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no model of that name") as caught:
        QwenChat.from_pretrained(NAME, home=tmp_path)
    assert "pull" in caught.value.fix
