"""`qwen-openai convert`, as a program of its own: what it prints, and what it refuses."""

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from qwen_openai.models import stamp
from qwen_openai.models.checkpoint import read_checkpoint
from qwen_openai.models.stamp import sha256_of
from tests.cli.program import PROGRAM, environment, run
from tests.models.qwen1 import tiny_qwen1


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_qwen1.write(tmp_path / "my source", tiny_qwen1.whole(shards=2))


def test_it_says_what_it_took_and_what_to_do_next(
    source: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    target = tmp_path / "my target"
    done = run("convert", str(source), str(target), env=env)
    assert (done.returncode, done.stderr.splitlines()) == (
        0,
        ["Writing my target: 5 MB", "Writing my target: done"],
    )
    written, took, peak, serve, other = done.stdout.splitlines()
    assert written == f"{target} is written: 5 MB of weights in 2 files."
    assert re.fullmatch(r"It took \d+\.\d s and held 2 MB of weights at a time\.", took)
    assert re.search(r"Peak memory of the whole process, .*: (\d+ MB|\d\.\d+ GB)\.", peak)
    assert serve == f"Serve it:  qwen-openai serve '{target}'"
    assert other == f"or:        vllm serve '{target}'"
    assert not read_checkpoint(target).raw


def test_a_pulled_model_by_its_name(source: Path, tmp_path: Path, env: dict[str, str]) -> None:
    model = Path(env["QWEN_OPENAI_HOME"]) / "modelscope" / "Qwen" / "Qwen-7B-Chat" / "v1.1.4"
    model.mkdir(parents=True)
    files = source.rename(model / "files")
    hashes = [(f"files/{each.name}", sha256_of(each)) for each in files.iterdir()]
    stamp.write(stamp.stamp_files(model, hashes, "test", None), model)
    done = run("convert", "Qwen/Qwen-7B-Chat", str(tmp_path / "target"), env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Writing target: ")
    assert not read_checkpoint(tmp_path / "target").raw


@pytest.mark.parametrize(
    ("given", "said", "fix"),
    [
        ("./nothing", "no file or folder './nothing'", "Check the path"),
        ("Qwen/Qwen-7B-Chat", "is no directory", "`qwen-openai pull Qwen/Qwen-7B-Chat` first"),
        ("no-such-name", "No model is called", "qwen-openai models"),
        (".", "config.json cannot be read", "Give a directory"),
    ],
)
def test_what_it_cannot_convert(
    tmp_path: Path, env: dict[str, str], given: str, said: str, fix: str
) -> None:
    target = tmp_path / "target"
    done = run("convert", given, str(target), env=env)
    assert done.returncode == 1
    error, way_out = done.stderr.splitlines()
    assert error.startswith("Error: ")
    assert said in error
    assert way_out.startswith("Fix:   ")
    assert fix in way_out
    assert not target.exists()


class _Held:
    """A conversion that waits with its weights half done: nobody reads what it says."""

    def __init__(self, source: Path, target: Path, env: dict[str, str]) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        with os.fdopen(writer, "wb") as stderr:
            self._process = subprocess.Popen(
                [PROGRAM, "convert", str(source), str(target)], env=env, stderr=stderr
            )
        self._target = target

    def __enter__(self) -> "_Held":
        end = time.monotonic() + 60
        while not list(self._target.parent.glob(".target.converting-*/new")):
            assert time.monotonic() < end
            assert self._process.poll() is None
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def end(self, number: int) -> int:
        self._process.send_signal(number)
        with os.fdopen(self._reader, "rb") as said:
            while said.read(65536):
                pass
        return self._process.wait(60)


def test_terminated_it_leaves_nothing(source: Path, tmp_path: Path, env: dict[str, str]) -> None:
    target = tmp_path / "place" / "target"
    with _Held(source, target, env) as held:
        assert held.end(signal.SIGTERM) == 143
    assert list(target.parent.iterdir()) == []


def test_killed_it_is_in_nobodys_way(source: Path, tmp_path: Path, env: dict[str, str]) -> None:
    target = tmp_path / "place" / "target"
    with _Held(source, target, env) as held:
        (left,) = target.parent.iterdir()
        done = run("convert", str(source), str(tmp_path / "place" / "other"), env=env)
        assert done.returncode == 0, done.stderr
        assert left.exists()
        assert held.end(signal.SIGKILL) == -signal.SIGKILL
    assert left.exists()
    done = run("convert", str(source), str(target), env=env)
    assert done.returncode == 0, done.stderr
    assert sorted(target.parent.iterdir()) == [tmp_path / "place" / "other", target]


@pytest.mark.parametrize("target", ["my source", "", "."])
def test_the_model_itself_is_no_target(
    source: Path, env: dict[str, str], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    done = run("convert", "my source", target, env=env)
    assert done.returncode == 1
    error, fix = done.stderr.splitlines()
    assert error.endswith(" the model that is to be converted, which is left as it is.")
    assert fix == "Fix:   Give the path of a new folder."


def test_pickles_need_torch(source: Path, tmp_path: Path, env: dict[str, str]) -> None:
    for file in source.glob("*.safetensors*"):
        file.unlink()
    (source / "pytorch_model.bin").write_bytes(b"anything")
    without = tmp_path / "without"
    (without / "torch").mkdir(parents=True)
    (without / "torch" / "__init__.py").write_text("raise ImportError('not here')")
    done = run(
        *("convert", str(source), str(tmp_path / "target")),
        env=env | {"PYTHONPATH": os.fspath(without)},
    )
    assert done.returncode == 1
    assert "PyTorch, which is not installed" in done.stderr
    assert "pip install torch==2.13.0 && pip install 'qwen-openai[transformers]'" in done.stderr


def test_its_help_teaches(env: dict[str, str]) -> None:
    done = run("convert", "--help", env=env)
    assert done.returncode == 0
    for told in ("qwen.tiktoken", "vllm serve ./qwen-7b-chat", "needs no conversion"):
        assert told in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
