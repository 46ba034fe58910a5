"""The console script as people meet it: help, failures, exit codes. One process a test."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen_openai import __version__
from qwen_openai.cli.commands import COMMANDS, load_command
from qwen_openai.settings import Settings, flag_of
from tests.cli.program import PROGRAM, environment, run

# A failure is told within two seconds on a quiet machine; this guards against minutes.
SOON = 10.0


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


def _failure(*arguments: str, env: dict[str, str]) -> tuple[str, str]:
    """Run a command that fails as it should; return what happened and the fix."""
    start = time.monotonic()
    done = run(*arguments, env=env)
    assert time.monotonic() - start < SOON
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("Error: ")
    assert lines[1].startswith("Fix:   ")
    return lines[0].removeprefix("Error: "), lines[1].removeprefix("Fix:   ")


@pytest.mark.parametrize(
    ("flags", "message", "fix"),
    [
        (["--port", "99999"], "The setting 'port' cannot be '99999' (from --port)", "TCP port"),
        (["--config", "no.toml"], "The config file no.toml cannot be read: No such file", "--conf"),
        (["--host", "0.0.0.0"], "no API key is set", "--insecure-no-auth"),
        (
            ["--api-key", ""],
            "'api_key' cannot be what it is (from --api-key): the key is",
            "Bearer",
        ),
        (["./nothing.gguf"], "no file or folder './nothing.gguf'", "qwen-openai models"),
        (["qwen2.5-coder-0.5"], "No model is called 'qwen2.5-coder-0.5'", "qwen2.5-coder-0.5b"),
        (["--offline"], "not on this machine", "--offline"),
    ],
    ids=["value", "config", "exposed", "empty-key", "path", "model", "offline"],
)
def test_serve_says_what_is_wrong_and_what_to_do(
    flags: list[str], message: str, fix: str, env: dict[str, str]
) -> None:
    port = [] if "--port" in flags else ["--port", "0"]
    said, do = _failure("serve", *flags, *port, env=env)
    assert message in said
    assert fix in do


def test_a_host_that_is_not_ours_is_told(env: dict[str, str]) -> None:
    flags = ["--host", "256.256.256.256", "--port", "0"]
    said, fix = _failure("serve", *flags, env={**env, "QWEN_OPENAI_API_KEY": "k"})
    assert "'256.256.256.256' is not an address of this machine" in said
    assert "--host" in fix


@pytest.mark.parametrize("command", ["serve", "config", "chat", "pull", "models"])
def test_a_wrong_key_in_a_config_file_names_the_nearest(
    command: str, env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "my.toml"
    file.write_text("slot = 4\n", encoding="utf-8")
    said, fix = _failure(command, env={**env, "QWEN_OPENAI_CONFIG": str(file)})
    assert said == f"Unknown setting 'slot' in {file}."
    assert fix == "Did you mean 'slots'?"


def test_a_wrong_variable_names_the_nearest(env: dict[str, str]) -> None:
    said, fix = _failure("config", env={**env, "QWEN_OPENAI_HOTS": "x"})
    assert said == "Unknown setting 'QWEN_OPENAI_HOTS' in the environment."
    assert fix == "Did you mean 'QWEN_OPENAI_HOST'?"


def test_a_port_in_use_names_the_process(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        said, fix = _failure("serve", "--engine", "fake", "--port", str(port), env=env)
    assert f"Port {port} on 127.0.0.1 is in use by process {os.getpid()} (" in said
    assert "--port" in fix


def test_chat_without_a_gateway_says_how_to_get_one(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    said, fix = _failure("chat", env={**env, "QWEN_OPENAI_PORT": str(port)})
    assert said == f"No gateway answers at http://127.0.0.1:{port}/v1."
    assert "`qwen-openai serve`" in fix


def test_chat_cannot_have_two_models(env: dict[str, str]) -> None:
    said, fix = _failure("chat", "some-model", "--base-url", "http://127.0.0.1:1", env=env)
    assert "Both a model to run here (some-model) and a gateway" in said
    assert "--model some-model" in fix


@pytest.mark.parametrize("where", [["--debug", "config"], ["config", "--debug"]])
def test_debug_shows_the_traceback(where: list[str], env: dict[str, str]) -> None:
    done = run(*where, env={**env, "QWEN_OPENAI_PORT": "x"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "StartupError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["srve"], "Did you mean 'serve'?"), (["serve", "--prot", "1"], "--port")],
)
def test_a_mistyped_command_or_flag_names_the_nearest(
    arguments: list[str], message: str, env: dict[str, str]
) -> None:
    done = run(*arguments, env=env)
    assert done.returncode == 2
    assert message in done.stderr


def test_help_shows_the_commands_and_where_to_start(env: dict[str, str]) -> None:
    done = run("--help", env=env)
    assert done.returncode == 0
    assert "Start here" in done.stdout
    for name, _, summary in COMMANDS:
        assert re.search(rf"\b{name} +{re.escape(summary[:40])}", done.stdout)


def test_without_arguments_the_help_is_shown(env: dict[str, str]) -> None:
    assert "Start here" in run(env=env).stdout


@pytest.mark.parametrize("name", [*(name for name, *_ in COMMANDS), "version"])
def test_every_command_has_help(name: str, env: dict[str, str]) -> None:
    done = run(name, "--help", env=env)
    assert done.returncode == 0
    assert f"Usage: qwen-openai {name}" in done.stdout


def test_serve_has_a_flag_for_every_setting(env: dict[str, str]) -> None:
    shown = run("serve", "--help", env={**env, "COLUMNS": "200"}).stdout
    for name in Settings.model_fields:
        assert name == "model" or f"{flag_of(name)} " in shown


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row[0])
def test_the_list_of_commands_repeats_their_own_first_lines(row: tuple[str, str, str]) -> None:
    name, module, summary = row
    documentation = load_command(name, module).__doc__
    assert (documentation or "").splitlines()[0] == summary


def test_help_imports_little(env: dict[str, str]) -> None:
    code = (
        "import sys\nfrom qwen_openai.cli import main\n"
        "sys.argv[1:] = ['--help']\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'pydantic', 'openai', 'fastapi', 'uvicorn', 'xllamacpp', 'tokenizers'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == "[]\n"


def test_versions(env: dict[str, str]) -> None:
    assert run("--version", env=env).stdout == f"{__version__}\n"
    shown = run("version", env=env).stdout
    assert shown.startswith(f"qwen-openai {__version__}\nPython ")
    assert "missing" not in shown


def test_the_module_runs_like_the_script(env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qwen_openai", "--version"], env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_config_is_json_for_programs(env: dict[str, str]) -> None:
    done = run("config", "--json", env={**env, "QWEN_OPENAI_API_KEY": "hunter2"})
    shown = json.loads(done.stdout)
    assert shown["api_key"]["origin"] == "QWEN_OPENAI_API_KEY"
    assert "hunter2" not in done.stdout


def test_a_reader_that_leaves_is_no_failure(env: dict[str, str]) -> None:
    with subprocess.Popen(
        [PROGRAM, "config"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
