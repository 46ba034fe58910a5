"""The real `serve`, from the command to the last signal, with the fake engine."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.cli.program import PROGRAM, environment, run
from tests.live import call


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


@contextmanager
def serving(*flags: str, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`qwen-openai serve` with the fake engine on a free port."""
    with subprocess.Popen(
        [PROGRAM, "serve", "--engine", "fake", "--port", "0", *flags],
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def panel_of(process: subprocess.Popen[str]) -> str:
    """Read standard output up to the last line of the panel."""
    assert process.stdout is not None
    shown = ""
    while shown.count("curl ") < 2:
        line = process.stdout.readline()
        assert line, shown + _rest(process.stderr)
        shown += line
    return shown


def port_of(panel: str) -> int:
    found = re.search(r"http://\S+:(\d+)/v1\n", panel)
    assert found is not None
    return int(found[1])


def _rest(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.read()


def test_the_panel_is_true_and_its_commands_work(env: dict[str, str]) -> None:
    with serving("--served-model-name", "qwen,gpt-4o-mini", env=env) as process:
        panel = panel_of(process)
        port = port_of(panel)
        assert "  model       qwen, gpt-4o-mini\n" in panel
        assert "only this machine can reach the server" in panel
        for line in panel.splitlines():
            if line.startswith("curl "):
                words = shlex.split(line)
                url = next(word for word in words if word.startswith("http://"))
                path = url.removeprefix(f"http://127.0.0.1:{port}") or "/"
                answer = call(port, "POST", path, words[-1].encode())
                assert answer.status == 200
                assert "你好" in answer.body.decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(number: signal.Signals, env: dict[str, str]) -> None:
    with serving(env=env) as process:
        panel_of(process)
        process.send_signal(number)
        assert process.wait(30) == 0
        assert "Traceback" not in _rest(process.stderr)


def test_it_ends_with_its_standard_input_when_asked_to(env: dict[str, str]) -> None:
    with serving("--until-stdin-closes", env=env) as process:
        panel_of(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_key_from_the_environment_is_asked_for(env: dict[str, str]) -> None:
    with serving(env={**env, "QWEN_OPENAI_API_KEY": "secret"}) as process:
        panel = panel_of(process)
        assert "secret" not in panel
        assert "required of every client" in panel
        port = port_of(panel)
        assert call(port, "GET", "/v1/models").status == 401
        header = {"authorization": "Bearer secret"}
        assert call(port, "GET", "/v1/models", headers=header).status == 200


def test_a_key_as_a_flag_is_warned_about(env: dict[str, str]) -> None:
    with serving("--api-key", "secret", env=env) as process:
        panel_of(process)
        process.terminate()
        assert "Warning: A key given as a flag can be read" in _rest(process.stderr)


def test_an_open_server_is_warned_about(env: dict[str, str]) -> None:
    with serving("--host", "0.0.0.0", "--insecure-no-auth", env=env) as process:
        panel = panel_of(process)
        assert "NONE; whoever reaches this address may use it" in panel
        assert "listens on  every interface" in panel
        process.terminate()
        assert "Warning: Anybody who reaches this address" in _rest(process.stderr)


def test_the_fake_config_serves(env: dict[str, str]) -> None:
    config = Path(__file__).parents[2] / "configs" / "fake.toml"
    with serving("--config", str(config), env=env) as process:
        assert "16 answers at a time" in panel_of(process)


def test_chat_starts_a_gateway_of_its_own_and_ends_it(env: dict[str, str]) -> None:
    done = run("chat", "fake", env={**env, "QWEN_OPENAI_ENGINE": "fake"}, stdin="你好")
    assert (done.returncode, done.stdout) == (0, "你好\n")
    assert _servers_of(env) == []


def test_chat_passes_the_servers_failure_on(env: dict[str, str]) -> None:
    done = run("chat", "./nothing.gguf", env=env, stdin="hi")
    assert done.returncode == 1
    assert "There is no file or folder './nothing.gguf'." in done.stderr
    assert "Traceback" not in done.stderr


def _servers_of(env: Mapping[str, str]) -> list[str]:
    """Processes that still run with this test's home."""
    wanted = f"QWEN_OPENAI_HOME={env['QWEN_OPENAI_HOME']}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) != os.getpid() and wanted in (folder / "environ").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found
