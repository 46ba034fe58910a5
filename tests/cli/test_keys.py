"""`qwen-openai keys` as people and scripts meet it, and the servers that its keys open.

Most commands run in this process; `started` ones are processes, beside servers that are others.
"""

import json
import re
import signal
import sqlite3
import time
from pathlib import Path

import pytest
import typer

from qwen_openai.cli.commands import GROUPS, load_group
from qwen_openai.cli.spans import iso, moment_of, seconds_of, shown
from tests.cli import program
from tests.cli.inside import run
from tests.cli.program import environment
from tests.cli.test_serve import panel_of, port_of, serving
from tests.live import call

NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


def keys(*arguments: str, env: dict[str, str], code: int = 0) -> str:
    """Run `qwen-openai keys ...`; return what it writes to standard output."""
    done = run("keys", *arguments, env=env)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def started(*arguments: str, env: dict[str, str]) -> str:
    """As `keys`, in a process of its own."""
    done = program.run("keys", *arguments, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def failure(*arguments: str, env: dict[str, str]) -> tuple[str, str]:
    """Return what happened and the fix of a command that fails as it should."""
    done = run("keys", *arguments, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    said, fix = done.stderr.splitlines()
    return said.removeprefix("Error: "), fix.removeprefix("Fix:   ")


def test_the_life_of_a_key(env: dict[str, str], tmp_path: Path) -> None:
    made = run("keys", "create", "安娜", "--models", "qwen, coder", "--expires", "30d", env=env)
    secret = made.stdout.removesuffix("\n")
    assert re.fullmatch(r"sk-qwen-[\w-]{43}", secret)
    assert secret not in made.stderr
    assert "for qwen, coder, no limits, until 20" in made.stderr
    file = tmp_path / "state" / "qwen-openai" / "gateway.db"
    assert str(file) in made.stderr
    assert file.stat().st_mode & 0o777 == 0o600

    header, row = keys("list", env=env).splitlines()
    assert header.split() == ["NAME", "ID", "KEY", "STATE", "EXPIRES", "MODELS", "LIMITS"]
    assert row.startswith("安娜  key_")  # the name is four columns wide, as NAME is
    assert header.index("ID") == len("安娜") + 4
    assert "  good  " in row
    assert secret[:12] in row
    assert secret[:16] not in row

    again = keys("rotate", "安娜", "--grace", "10m", env=env).strip()
    assert again != secret
    told = keys("show", "安娜", env=env)
    assert f"before   {secret[:12]}..., which works until" in told
    assert "models   qwen, coder\n" in told

    assert keys("revoke", "安娜", env=env) == ""
    assert "revoked before" in run("keys", "revoke", "安娜", env=env).stderr
    assert json.loads(keys("list", "--json", env=env))[0]["state"] == "revoked"
    said, fix = failure("rotate", "安娜", env=env)
    assert "is revoked" in said
    assert "keys create" in fix


def test_json_is_for_programs(env: dict[str, str]) -> None:
    limits = ["--requests-per-minute", "60", "--tokens-per-day", "50000"]
    made = json.loads(keys("create", "app", *limits, "--json", env=env))
    assert made["key"].startswith("sk-qwen-")
    assert made["limits"] == {
        "requests_per_minute": 60,
        "tokens_per_minute": None,
        "parallel_requests": None,
        "tokens_per_day": 50000,
        "tokens_per_month": None,
    }
    assert (made["models"], made["expires"], made["revoked"]) == ([], None, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created"])
    secret = made.pop("key")
    assert json.loads(keys("list", "--json", env=env)) == [made]
    assert json.loads(keys("show", made["id"], "--json", env=env)) == {**made, "earlier": []}
    rotated = json.loads(keys("rotate", "app", "--json", env=env))
    assert rotated["id"] == made["id"]
    assert rotated["key"] != secret


def test_an_empty_list_says_how_to_begin_and_makes_no_file(
    env: dict[str, str], tmp_path: Path
) -> None:
    done = run("keys", "list", env=env)
    assert (done.returncode, done.stdout) == (0, "")
    assert "qwen-openai keys create NAME" in done.stderr
    assert keys("list", "--json", env=env) == "[]\n"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "message", "fix"),
    [
        (["show", "nobody"], "No key has the id or name 'nobody'", "keys list"),
        (["revoke", "nobody"], "No key has the id or name 'nobody'", "--database"),
        (["rotate", "' OR 1=1--"], "No key has the id", "keys list"),
        (["create", "key_1"], "'key_1' cannot be the name of a key", "visible"),
        (["show", "sk-qwen-0123"], "That is a key itself", "id or name"),
        (["create", "anna", "--database", "off"], "'database' is off", "--database"),
        (["list", "--config", "no.toml"], "no.toml cannot be read", "--config"),
    ],
)
def test_a_failure_is_two_lines(
    arguments: list[str], message: str, fix: str, env: dict[str, str]
) -> None:
    said, do = failure(*arguments, env=env)
    assert message in said
    assert fix in do
    assert "sk-qwen-0123" not in said + do


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--expires", "soon", "'soon' is no time"),
        ("--expires", "2001-01-31", "is not a time to come"),
        ("--expires", "0d", "is not a time to come"),
        ("--requests-per-minute", "0", "greater than or equal to 1"),
        ("--tokens-per-day", "many", "valid integer"),
    ],
)
def test_a_wrong_value_is_wrong_usage(
    option: str, value: str, message: str, env: dict[str, str]
) -> None:
    done = run("keys", "create", "anna", option, value, env={**env, "COLUMNS": "200"})
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert keys("list", "--json", env=env) == "[]\n"


def test_a_wrong_grace_is_wrong_usage(env: dict[str, str]) -> None:
    keys("create", "anna", env=env)
    done = run("keys", "rotate", "anna", "--grace", "10", env={**env, "COLUMNS": "200"})
    assert done.returncode == 2
    assert "'10' is no span of time" in done.stderr


def test_the_file_is_the_servers(env: dict[str, str], tmp_path: Path) -> None:
    """By flag, by environment, by config file; the flag first."""
    config = tmp_path / "my.toml"
    config.write_text(f'database = "{tmp_path / "config.db"}"\n', encoding="utf-8")
    named = {**env, "QWEN_OPENAI_DATABASE": str(tmp_path / "variable.db")}
    keys("create", "a", "--config", str(config), env=env)
    keys("create", "b", "--config", str(config), env=named)
    keys("create", "c", "--database", str(tmp_path / "flag.db"), env=named)
    for file, name in (("config", "a"), ("variable", "b"), ("flag", "c")):
        connection = sqlite3.connect(tmp_path / f"{file}.db")
        assert connection.execute("SELECT name FROM keys").fetchall() == [(name,)]
        connection.close()


def test_a_file_that_others_may_read_is_warned_about(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "my.db"
    keys("create", "anna", "--database", str(file), env=env)
    file.chmod(0o644)
    done = run("keys", "list", "--database", str(file), env=env)
    assert f"Warning: Other users of this machine may read the database {file}" in done.stderr
    with serving("--database", str(file), env=env) as process:
        panel_of(process)
        process.terminate()
        assert process.stderr is not None
        assert "Other users of this machine may read the database" in process.stderr.read()


def test_a_damaged_file_stops_both_at_once(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "my.db"
    file.write_text("dear diary " * 100, encoding="utf-8")
    said, fix = failure("list", "--database", str(file), env=env)
    assert f"The database {file} cannot be used: file is not a database." in said
    serve = ("serve", "--engine", "fake", "--port", "0", "--database", str(file))
    done = program.run(*serve, env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"Error: {said}", f"Fix:   {fix}"]


def test_a_key_opens_a_server_beyond_loopback_and_stops_within_a_second(
    env: dict[str, str],
) -> None:
    refused = program.run("serve", "--engine", "fake", "--port", "0", "--host", "0.0.0.0", env=env)
    assert refused.returncode == 1
    assert "`qwen-openai keys create NAME`" in refused.stderr
    secret = started("create", "anna", env=env).strip()
    with serving("--host", "0.0.0.0", env=env) as process:
        panel = panel_of(process)
        assert "required of every client: 1 key\n" in panel
        assert '-H "Authorization: Bearer $OPENAI_API_KEY"' in panel
        port, headers = port_of(panel), {"authorization": f"Bearer {secret}"}
        assert call(port, "GET", "/v1/models").status == 401
        assert call(port, "GET", "/v1/models", headers=headers).status == 200
        started("revoke", "anna", env=env)
        end = time.monotonic() + 5
        while call(port, "GET", "/v1/models", headers=headers).status == 200:
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    # No good key is left, so nobody could come in.
    refused = program.run("serve", "--engine", "fake", "--port", "0", "--host", "0.0.0.0", env=env)
    assert refused.returncode == 1


@pytest.mark.parametrize("name", ["create", "list", "show", "revoke", "rotate"])
def test_every_command_teaches(name: str, env: dict[str, str]) -> None:
    done = run("keys", name, "--help", env=env)
    assert done.returncode == 0
    assert f"Usage: qwen-openai keys {name}" in done.stdout
    assert f"  qwen-openai keys {name}" in done.stdout
    assert "--database" in done.stdout
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert not [line for line in lines if line in ("50000", "12h)")]  # no example is broken up


def test_the_group_teaches_and_names_its_commands(env: dict[str, str]) -> None:
    for arguments in (("keys",), ("keys", "--help")):
        shown = run(*arguments, env=env).stdout
        assert all(f"│ {name} " in shown for name in ("create", "list", "show", "revoke"))
    assert "Did you mean" in run("keys", "creat", env=env).stderr


def test_groups_are_made_when_they_are_called() -> None:
    assert all(isinstance(load_group(name, name), typer.Typer) for name in GROUPS)


def test_spans() -> None:
    spans = {"90s": 90, "10m": 600, "12h": 43_200, "30d": 2_592_000, "4w": 2_419_200}
    assert {text: seconds_of(text) for text in spans} == spans
    for wrong in ("", "10", "m", "-1d", "1.5h", "1 d", "１d", "1y", "9999999999d"):
        with pytest.raises(typer.BadParameter):
            seconds_of(wrong)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30d", "2027-02-14T08:00:00Z"),
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T18:00", "2027-01-31T18:00:00Z"),
        ("2027-01-31T18:00+08:00", "2027-01-31T10:00:00Z"),
    ],
)
def test_moments(text: str, moment: str) -> None:
    assert iso(moment_of(text, NOW)) == moment


@pytest.mark.parametrize("text", ["", "2027-01-15", "2027-13-01", "tomorrow", "0s", "999999999w"])
def test_what_is_no_time_to_come(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment_of(text, NOW)


def test_times_for_people_and_programs() -> None:
    assert shown(NOW + 59.9) == "2027-01-15 08:00 UTC"
    assert iso(NOW + 0.9) == "2027-01-15T08:00:00Z"
    assert iso(None) is None
