"""Each example, run as a user would: but for one, against the real `serve` or the real model."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from qwen_openai.core import Job
from qwen_openai.engines.fake import Step, reply
from qwen_openai.models.layout import default_home
from tests.cli.program import PROGRAM, environment
from tests.live import threaded
from tests.models.qwen1.real_fixture import real_qwen1
from tests.real import real_files
from tests.wire.qwen1 import Qwen1Engine

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).parents[2] / "examples"
LONGEST = 40  # lines
_BASE_URL = re.compile(r"http://\S+/v1$", re.MULTILINE)


def _files() -> list[Path]:
    return sorted(file for file in EXAMPLES.iterdir() if file.suffix in {".py", ".sh"})


def _home() -> Path:
    return Path(os.environ.get("QWEN_OPENAI_HOME") or default_home())


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    """The environment of a client, while a server runs."""
    real_files()
    clean = environment(_home())
    with subprocess.Popen(
        [PROGRAM, "serve", "--port", "0", "--context", "2048", "--slots", "2"],
        env=clean,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            found = next(filter(None, map(_BASE_URL.search, process.stdout)), None)
            assert found is not None, "the server did not start"
            yield {**clean, "QWEN_OPENAI_BASE_URL": found.group()}
        finally:
            process.terminate()
            assert process.wait(60) == 0


def _run(name: str, env: dict[str, str], tmp_path: Path, *arguments: str) -> str:
    """Run a copy of an example outside the repository, where it finds nothing of ours."""
    copy = shutil.copy(EXAMPLES / name, tmp_path)
    runner = [sys.executable] if name.endswith(".py") else ["bash"]
    done = subprocess.run(
        [*runner, copy, *arguments],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or arguments  # transformers draws a bar while it loads a folder
    return done.stdout


def _has_chinese(text: str) -> bool:
    return re.search(r"[\u4e00-\u9fff]{2}", text) is not None


def test_openai_chat(env: dict[str, str], tmp_path: Path) -> None:
    first, second, usage = _run("openai_chat.py", env, tmp_path).splitlines()
    assert "Paris" in first
    assert "巴黎" in second
    assert re.fullmatch(r"\d+ tokens", usage)


def test_openai_stream(env: dict[str, str], tmp_path: Path) -> None:
    *text, usage = _run("openai_stream.py", env, tmp_path).splitlines()
    assert "北京" in "".join(text)
    assert re.fullmatch(r"\d+ tokens", usage)


def test_openai_tools(env: dict[str, str], tmp_path: Path) -> None:
    call, *answer = _run("openai_tools.py", env, tmp_path).splitlines()
    name, _, arguments = call.removeprefix("call: ").partition(" ")
    assert name == "get_weather"
    assert json.loads(arguments) == {"city": "Beijing"}
    assert re.match(r"answer: .*(22|[Ss]unny)", " ".join(answer))


def test_openai_parse(env: dict[str, str], tmp_path: Path) -> None:
    (event,) = _run("openai_parse.py", env, tmp_path).splitlines()
    assert re.fullmatch(r".+ on (Mon|Tues|Wednes|Thurs|Fri)day with .*", event)


def test_openai_fill_in(env: dict[str, str], tmp_path: Path) -> None:
    code = _run("openai_fill_in.py", env, tmp_path)
    assert code.startswith("def is_even(number):\n    return number % 2 == 0")
    assert code.endswith("print(is_even(4))\n\n")


def test_openai_responses(env: dict[str, str], tmp_path: Path) -> None:
    first, *second, usage = _run("openai_responses.py", env, tmp_path).splitlines()
    assert "Paris" in first
    assert "巴黎" in "".join(second)
    assert re.fullmatch(r"\d+ tokens", usage)


def test_langchain_chat(env: dict[str, str], tmp_path: Path) -> None:
    shown = _run("langchain_chat.py", env, tmp_path)
    assert re.search(r"4|[Ff]our", shown.splitlines()[0])
    assert len(shown.splitlines()) > 1


def test_legacy_requests(env: dict[str, str], tmp_path: Path) -> None:
    shown = _run("legacy_requests.py", env, tmp_path)
    assert _has_chinese(shown)
    assert re.fullmatch(r"2 turns at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown.splitlines()[-1])


def test_legacy_curl(env: dict[str, str], tmp_path: Path) -> None:
    body = json.loads(_run("legacy_curl.sh", env, tmp_path))
    assert set(body) == {"response", "history", "status", "time"}
    assert body["status"] == 200
    assert _has_chinese(body["response"])
    assert body["history"] == [["你好", body["response"]]]


def test_chat_with_a_local_model(env: dict[str, str]) -> None:
    without = {name: value for name, value in env.items() if name != "QWEN_OPENAI_BASE_URL"}
    done = subprocess.run(
        [PROGRAM, "chat", "qwen2.5-coder-0.5b"],
        env={**without, "QWEN_OPENAI_CONTEXT": "1024", "QWEN_OPENAI_SLOTS": "1"},
        input="法国的首都是哪里?",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "巴黎" in done.stdout


def test_qwen_chat_library(tmp_path: Path) -> None:
    shown = _run("qwen_chat_library.py", environment(_home()), tmp_path, str(real_qwen1()))
    first, *_, last = shown.splitlines()
    assert first == "你好！有什么我可以帮忙的吗？"
    assert re.fullmatch(r"(stop|length) after \d+ tokens", last)


def _calls_then_answers(job: Job) -> Iterable[Step]:
    """ReAct text as Qwen-7B-Chat writes it; the embedded model was never trained on that."""
    last = job.messages[-1]
    if last.role == "tool":
        return reply(f" I now know.\nFinal Answer: {last.content}")(job)
    return reply('Thought: I look.\nAction: get_weather\nAction Input: {"city": "北京"}')(job)


def test_tools_react(tmp_path: Path) -> None:
    with threaded(lambda: Qwen1Engine(_calls_then_answers)) as server:
        clean = {**environment(_home()), "QWEN_OPENAI_BASE_URL": server.base_url}
        shown = _run("tools_react.py", clean, tmp_path)
    assert shown.splitlines() == [
        'call: get_weather {"city": "北京"}',
        "answer: Sunny and 22 degrees in 北京.",
    ]


def test_examples_are_short_and_all_are_run() -> None:
    files = _files()
    assert [file.name for file in files] == [
        "langchain_chat.py",
        "legacy_curl.sh",
        "legacy_requests.py",
        "openai_chat.py",
        "openai_fill_in.py",
        "openai_parse.py",
        "openai_responses.py",
        "openai_stream.py",
        "openai_tools.py",
        "qwen_chat_library.py",
        "tools_react.py",
    ]
    for file in files:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST
