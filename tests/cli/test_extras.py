"""Which extra a `serve` needs: told by names and settings alone, and never in the way."""

import subprocess
import sys
from pathlib import Path

import pytest

from qwen_openai.cli.extras import TRANSFORMERS, needed_extra


@pytest.fixture(autouse=True)
def _nothing_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QWEN_OPENAI_HOME", str(tmp_path / "home"))
    for name in ("MODEL", "ENGINE", "CONFIG"):
        monkeypatch.delenv(f"QWEN_OPENAI_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "Qwen/Qwen-7B-Chat",
        "Qwen/Qwen-7B-Chat@v1.1.4",
        "--port 8000 Qwen/Qwen-7B-Chat --context 16384",
        "Qwen/Qwen-7B-Chat --debug",
        "Qwen/Qwen-7B-Chat --engine auto --until-stdin-closes",
        "--engine=qwen_chat ./no-such-folder",
        "Qwen/Qwen-7B-Chat --upstreams http://127.0.0.1:8001",
        "qwen2.5-coder-0.5b --engine transformers",
        "Qwen/Qwen2.5-0.5B-Instruct-GGUF --engine transformers",
    ],
)
def test_weights_for_transformers_need_it(line: str) -> None:
    assert needed_extra(line.split()) == TRANSFORMERS


@pytest.mark.parametrize(
    "line",
    [
        "",
        "qwen2.5-coder-0.5b",
        "Qwen/Qwen2.5-0.5B-Instruct-GGUF",
        "Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf",
        "Qwen/Qwen-7B-Chat --engine fake",
        "Qwen/Qwen-7B-Chat --engine llamacpp",
        "Qwen/Qwen-7B-Chat --help",
        "--engine upstream --upstreams http://127.0.0.1:8001,http://127.0.0.1:8002",
        "--engine upstream --upstreams http://a Qwen/Qwen-7B-Chat",
        "--upstreams http://127.0.0.1:8001",
    ],
)
def test_what_runs_without_torch_needs_nothing(line: str) -> None:
    assert needed_extra(line.split()) is None


@pytest.mark.parametrize(
    "line",
    [
        "--no-such-flag",
        "--port",
        "Qwen/Qwen-7B-Chat --port many",
        "Qwen/Qwen-7B-Chat --engine another",
        "Qwen/Qwen-7B-Chat --config no-such-file.toml",
        "no-such-model",
        "./no-such-folder",
        "\udcff/\udcff",
    ],
)
def test_what_is_wrong_is_left_to_the_command_itself(line: str) -> None:
    assert needed_extra(line.split()) is None


def test_a_folder_is_told_by_what_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    assert needed_extra([str(folder)]) is None
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert needed_extra([str(folder)]) == TRANSFORMERS
    (folder / "model.gguf").touch()
    assert needed_extra([str(folder)]) is None


def test_a_repository_that_was_pulled_is_told_by_what_it_holds(tmp_path: Path) -> None:
    files = tmp_path / "home" / "modelscope" / "someone" / "tuned" / "master" / "files"
    files.mkdir(parents=True)
    (files / "config.json").touch()
    assert needed_extra(["someone/tuned"]) == TRANSFORMERS
    (files / "model.gguf").touch()
    assert needed_extra(["someone/tuned"]) is None


def test_one_file_that_was_pulled_says_nothing_of_its_repository(tmp_path: Path) -> None:
    files = tmp_path / "home" / "modelscope" / "someone" / "tuned" / "master+q4.gguf" / "files"
    files.mkdir(parents=True)
    (files / "q4.gguf").touch()
    assert needed_extra(["someone/tuned"]) == TRANSFORMERS


def test_environment_and_file_count_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QWEN_OPENAI_MODEL", "Qwen/Qwen-7B-Chat")
    assert needed_extra([]) == TRANSFORMERS
    assert needed_extra(["qwen2.5-coder-0.5b"]) is None
    config = tmp_path / "my.toml"
    config.write_text('engine = "fake"\n', encoding="utf-8")
    assert needed_extra(["--config", str(config)]) is None


@pytest.mark.parametrize(
    ("line", "shown"), [("Qwen/Qwen-7B-Chat", "transformers"), ("--no-such-flag", "")]
)
def test_it_prints_one_word_or_nothing(line: str, shown: str) -> None:
    command = [sys.executable, "-m", "qwen_openai.cli.extras", *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")
