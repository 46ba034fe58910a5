"""The real `chat` against a live gateway, through a pipe and on a terminal."""

import json
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from qwen_openai.cli.chat import save
from qwen_openai.cli.client import with_path
from qwen_openai.cli.terminal import harmless
from qwen_openai.core import Job
from qwen_openai.engines.fake import FakeEngine, Step
from qwen_openai.errors import StartupError
from tests.cli.program import OnTerminal, environment, run
from tests.live import Live, threaded

CTRL_C, CTRL_D, ENTER, ALT_ENTER = "\x03", "\x04", "\r", "\x1b\r"


def _script(job: Job) -> Iterable[Step]:
    """Shout the question back; after `hang` say something and then nothing more."""
    if job.messages[-1].content == "hang":
        return ["half", " an", " answer", 600.0]
    return [job.messages[-1].content.upper()]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(_script)


@pytest.fixture
def gateway(engine: FakeEngine) -> Iterator[Live]:
    with threaded(lambda: engine, api_key="secret") as live:
        yield live


@pytest.fixture
def env(gateway: Live, tmp_path: Path) -> dict[str, str]:
    return environment(
        tmp_path, QWEN_OPENAI_BASE_URL=gateway.base_url, QWEN_OPENAI_API_KEY="secret"
    )


def test_a_pipe_is_one_question(env: dict[str, str]) -> None:
    done = run("chat", env=env, stdin="你好\nand hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "你好\nAND HELLO\n", "")


def test_an_output_without_chinese_gets_escapes(env: dict[str, str]) -> None:
    done = run("chat", env={**env, "PYTHONIOENCODING": "ascii"}, stdin="你好")
    assert (done.returncode, done.stdout) == (0, "\\u4f60\\u597d\n")


def test_lines_are_turns_of_one_conversation(env: dict[str, str], engine: FakeEngine) -> None:
    done = run("chat", "--lines", "--system", "Be brief.", env=env, stdin="one\n\ntwo\n")
    assert (done.returncode, done.stdout) == (0, "ONE\nTWO\n")
    said = [(message.role, message.content) for message in engine.jobs[-1].messages]
    assert said == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "ONE"),
        ("user", "two"),
    ]


def test_an_empty_pipe_is_an_error(env: dict[str, str]) -> None:
    done = run("chat", env=env, stdin=" \n")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Standard input holds no question.\nFix:   ")


def test_the_gateways_own_sentence_is_shown(env: dict[str, str]) -> None:
    done = run("chat", "--model", "gpt-9", env=env, stdin="hi")
    assert done.returncode == 1
    assert "The model 'gpt-9' does not exist here. Available: 'fake'." in done.stderr


def test_a_wrong_key_is_said(env: dict[str, str]) -> None:
    done = run("chat", env={**env, "QWEN_OPENAI_API_KEY": "wrong"}, stdin="hi")
    assert done.returncode == 1
    assert "wants another API key" in done.stderr
    assert "QWEN_OPENAI_API_KEY" in done.stderr


def test_a_chat_on_a_terminal(env: dict[str, str], engine: FakeEngine, tmp_path: Path) -> None:
    with OnTerminal("chat", env=env, cwd=tmp_path) as chat:
        chat.expect("/help lists the commands")
        for keys, shown in [
            ("/system Be brief." + ENTER, "The system message is set."),
            ("first line" + ALT_ENTER + "second line" + ENTER, "FIRST LINE\r\nSECOND LINE\r\n"),
            ('"""block' + ENTER + 'end"""' + ENTER, "BLOCK\r\nEND\r\n"),
            ("hang" + ENTER, "half an answer"),
            (CTRL_C, "(stopped)"),
            ("still there?" + ENTER, "STILL THERE?\r\n"),
            (CTRL_C, "Ctrl-D or /exit leaves."),
            ("/save talk.json" + ENTER, f"Saved to {tmp_path / 'talk.json'}"),
        ]:
            if shown != "(stopped)":
                chat.expect(">>>")
            chat.type(keys)
            chat.expect(shown)
        chat.expect(">>>")
        chat.type(CTRL_D)
        assert chat.wait() == 0
    assert engine.record.cancelled == 1
    assert engine.record.open == 0
    saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["messages"]
    assert [turn["content"] for turn in saved] == [
        "Be brief.",
        "first line\nsecond line",
        "FIRST LINE\nSECOND LINE",
        "block\nend",
        "BLOCK\nEND",
        "hang",
        "half an answer",
        "still there?",
        "STILL THERE?",
    ]


@pytest.fixture
def lonely(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine where no gateway runs."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    return environment(tmp_path, QWEN_OPENAI_PORT=str(port), QWEN_OPENAI_ENGINE="fake")


def test_without_a_gateway_a_model_is_offered(lonely: dict[str, str], tmp_path: Path) -> None:
    with OnTerminal("chat", env=lonely, cwd=tmp_path) as chat:
        chat.expect("Run qwen2.5-coder-0.5b here, for this chat?")
        chat.type("y" + ENTER)
        chat.expect(">>>")
        chat.type("anyone?" + ENTER)
        chat.expect(">>>")
        chat.type("/save talk.json" + ENTER)
        chat.expect("Saved to")
        chat.expect(">>>")
        chat.type("/exit" + ENTER)
        assert chat.wait() == 0
    saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["messages"]
    assert [turn["content"] for turn in saved] == ["anyone?", "anyone?"]


def test_a_local_gateway_answers_whatever_hosts_are_allowed(
    lonely: dict[str, str], tmp_path: Path
) -> None:
    env = {**lonely, "QWEN_OPENAI_ALLOWED_HOSTS": "gateway.example"}
    with OnTerminal("chat", env=env, cwd=tmp_path) as chat:
        chat.expect("for this chat?")
        chat.type("y" + ENTER)
        chat.expect(">>>")
        chat.type("anyone?" + ENTER)
        chat.expect(">>>")
        chat.type("/save talk.json" + ENTER)
        chat.expect("Saved to")
        chat.expect(">>>")
        chat.type("/exit" + ENTER)
        assert chat.wait() == 0
    saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["messages"]
    assert [turn["content"] for turn in saved] == ["anyone?", "anyone?"]


def test_the_offer_can_be_declined(lonely: dict[str, str], tmp_path: Path) -> None:
    with OnTerminal("chat", env=lonely, cwd=tmp_path) as chat:
        chat.expect("for this chat?")
        chat.type("n" + ENTER)
        assert chat.wait() == 1


def test_saving_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    assert save(str(file), "{}") == f"Saved to {file}"
    assert save(str(file), "[]") == f"{file} exists already; give another name."
    assert file.read_text(encoding="utf-8") == "{}"
    assert "cannot be written" in save(str(tmp_path / "no" / "talk.json"), "{}")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:6006", "http://127.0.0.1:6006/v1"),
        ("http://127.0.0.1:6006/", "http://127.0.0.1:6006/v1"),
        ("https://host/qwen/v1", "https://host/qwen/v1"),
    ],
)
def test_a_base_url_is_completed(given: str, used: str) -> None:
    assert with_path(given) == used


@pytest.mark.parametrize("given", ["127.0.0.1:6006", "ftp://host/", "http://", "localhost"])
def test_what_is_no_url_is_refused(given: str) -> None:
    with pytest.raises(StartupError, match="is not the URL of a server"):
        with_path(given)


def test_an_answer_cannot_steer_the_terminal() -> None:
    assert harmless("a\x1b]0;evil\x07b\x9b2Jc\td\n\re\x7f") == "a]0;evilb2Jc\td\ne"
