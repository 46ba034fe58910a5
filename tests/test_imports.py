"""torch and transformers stay out of a gateway that does not need them: by the layers' contract,
which must be able to fail, and in the processes themselves, where every import is seen."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qwen_openai.models.layout import default_home
from tests.cli.program import environment
from tests.live import call
from tests.real import real_files
from tests.upstream.process import mocks

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "accelerate", "safetensors", "tiktoken"}
# What makes answers or fetches models: a gateway that only hands requests on needs none of it.
LOCAL = HEAVY | {"xllamacpp", "llguidance", "modelscope", "tokenizers", "numpy", "filelock"}
# What belongs to other commands.
_OF_COMMANDS = {"openai", "httpx2", "prompt_toolkit"}
_CONTRACT = "torch stays out of the gateway"

_IMPORTED = re.compile(r"^import time:.*\| +([A-Za-z_]\w*)[.\w]*$", re.MULTILINE)


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "", "LC_ALL": "C.UTF-8", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package beside its contracts, to be broken."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "qwen_openai", tmp_path / "qwen_openai", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


_INTRUDERS = {
    "chat": "import torch",
    "engines.factory": "def late() -> None:\n    from transformers import AutoModel",
    "models.store": "import safetensors.torch",
    "prompting.brand_new": "import accelerate",
    "engines.brand_new.inside": "from tiktoken import Encoding",
}


def test_the_contract_fails_where_torch_comes_in(copy: Path) -> None:
    for module, line in _INTRUDERS.items():
        file = copy / "qwen_openai" / f"{module.replace('.', '/')}.py"
        file.parent.mkdir(exist_ok=True)
        (file.parent / "__init__.py").touch()
        with file.open("a", encoding="utf-8") as source:
            source.write(f"\n\n{line}\n")
    done = _lint(copy)
    assert done.returncode == 1
    assert f"{_CONTRACT} BROKEN" in done.stdout
    broken = re.findall(r"qwen_openai\.(\S+) -> (\w+) \(l", done.stdout.replace("\n", " "))
    found = {(module, package) for module, package in broken if package in HEAVY}
    assert found == {
        ("chat", "torch"),
        ("engines.factory", "transformers"),
        ("models.store", "safetensors"),
        ("prompting.brand_new", "accelerate"),
        ("engines.brand_new.inside", "tiktoken"),
    }


def test_the_contracts_hold_in_a_copy(copy: Path) -> None:
    assert f"{_CONTRACT} KEPT" in _lint(copy).stdout


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".app",
        ".cli.panel",
        ".cli.serve",
        ".cli.convert",
        ".cli.extras",
        ".server",
        ".engines.factory",
        ".engines.qwen_chat.engine",
        ".engines.transformers.engine",
        ".models.store",
        ".models.qwen1",
    ],
)
def test_importing_brings_no_torch(module: str) -> None:
    code = f"import sys, qwen_openai{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "qwen_openai" in loaded
    assert not loaded & HEAVY


@contextmanager
def _serving(home: Path, log: Path, *arguments: str) -> Iterator[int]:
    """A `serve` that writes each of its imports to ``log``; gives its port."""
    command = [sys.executable, "-X", "importtime", "-m", "qwen_openai", "serve", "--port", "0"]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [*command, *arguments],
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            found = (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in process.stdout)
            address = next(filter(None, found), None)
            assert address is not None, log.read_text(encoding="utf-8")[-2000:]
            yield int(address[1])
        finally:
            process.terminate()
            assert process.wait(60) == 0


def _ask(port: int) -> None:
    """Each route once, so that what is imported late is seen too."""
    question = [{"role": "user", "content": "Hi"}]
    (model,) = call(port, "GET", "/v1/models").json()["data"]
    for stream in (False, True):
        body = {"model": model["id"], "messages": question, "stream": stream, "max_tokens": 2}
        assert call(port, "POST", "/v1/chat/completions", body).status == 200
    assert call(port, "POST", "/", {"prompt": "Hi", "history": [], "max_length": 64}).status == 200


def _imported(log: Path) -> set[str]:
    return set(_IMPORTED.findall(log.read_text(encoding="utf-8")))


def test_serving_brings_no_torch(tmp_path: Path) -> None:
    with _serving(tmp_path, tmp_path / "log", "--engine", "fake") as port:
        _ask(port)
    seen = _imported(tmp_path / "log")
    assert {"fastapi", "qwen_openai"} <= seen
    assert not seen & HEAVY


def test_serving_upstreams_alone_brings_nothing_that_makes_answers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with mocks("a") as (mock,):
        only = ("--engine", "upstream", "--upstreams", mock.url, "--database", "off")
        with _serving(tmp_path, log, *only) as port:
            _ask(port)
            assert call(port, "GET", "/v1/capabilities").status == 200
    seen = _imported(log)
    assert {"fastapi", "aiohttp", "qwen_openai"} <= seen
    assert not seen & (LOCAL | _OF_COMMANDS)


@pytest.mark.real
def test_serving_the_embedded_model_brings_no_torch(tmp_path: Path) -> None:
    real_files()
    limits = ("--context", "512", "--slots", "1")
    with _serving(default_home(), tmp_path / "log", *limits) as port:
        _ask(port)
    seen = _imported(tmp_path / "log")
    assert {"fastapi", "tokenizers"} <= seen
    assert not seen & HEAVY
