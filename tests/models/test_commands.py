"""`pull` and `models` as commands: what is printed where."""

import json
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from qwen_openai.cli.pull import models, pull, pull_progress
from qwen_openai.errors import StartupError
from qwen_openai.models.inventory import inventory
from qwen_openai.models.store import PullOptions, Store
from tests.models import tiny
from tests.models.conftest import Told
from tests.models.qwen1 import tiny_qwen1
from tests.models.stand_in import StandIn


@pytest.fixture
def program() -> typer.Typer:
    program = typer.Typer()
    program.command()(pull)
    program.command()(models)
    return program


def test_pull_prints_plain_lines_and_the_path(
    program: typer.Typer, hub: StandIn, home: Path
) -> None:
    hub.repositories[tiny.REPOSITORY] = {"v1": {tiny.FILE: tiny.gguf()}}
    arguments = ["pull", tiny.REPOSITORY, "--revision", "v1", "--home", str(home)]
    result = CliRunner().invoke(program, arguments)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert result.stdout.startswith(f"{tiny.REPOSITORY} is complete and verified: {home}")
    assert result.stderr.splitlines()[0] == f"{tiny.REPOSITORY}@v1: 0 MB"


def test_pull_of_weights_that_ask_for_code_says_so(
    program: typer.Typer, hub: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_OPENAI_HOME", str(home))
    hub.repositories["org/name"] = {"master": tiny_qwen1.whole()}
    result = CliRunner().invoke(program, ["pull", "org/name"])
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first == (
        f"org/name is complete and verified: {home / 'modelscope' / 'org/name/master/files'}"
    )
    assert second == (
        "It asks for Python code of its own, which is not run: its weights are converted while"
        " they load."
    )


@pytest.mark.parametrize("left", [None, '{"format": 0}'])
def test_pull_of_a_good_model_mends_its_description(
    program: typer.Typer, hub: StandIn, home: Path, told: Told, left: str | None
) -> None:
    hub.repositories[tiny.REPOSITORY] = {"master": {tiny.FILE: tiny.gguf()}}
    found = tiny.files(Store(home).pull(tiny.REPOSITORY, PullOptions(), told))
    description = found.tokenizer.with_name("model.json")
    description.unlink()
    if left is not None:
        description.write_text(left)
    result = CliRunner().invoke(program, ["pull", tiny.REPOSITORY, "--home", str(home)])
    assert result.exit_code == 0, result.output
    assert "no GGUF file" not in result.stdout
    assert result.stdout == f"{tiny.REPOSITORY} is complete and verified: {found.weights}\n"
    assert Store(home).locate(tiny.REPOSITORY) == found


def test_pull_offline_fails(program: typer.Typer, home: Path) -> None:
    result = CliRunner().invoke(program, ["pull", "--offline", "--home", str(home)])
    assert isinstance(result.exception, StartupError)


def test_models_as_json(program: typer.Typer, hub: StandIn, home: Path, told: Told) -> None:
    hub.repositories[tiny.REPOSITORY] = {"master": {tiny.FILE: tiny.gguf()}}
    found = tiny.files(Store(home).pull(tiny.REPOSITORY, PullOptions(), told))
    partial = home / "partial" / "catalogue--qwen2.5-coder-1.5b" / "wheels"
    partial.mkdir(parents=True)
    (partial / "joined.part").write_bytes(bytes(1000))

    result = CliRunner().invoke(program, ["models", "--json", "--home", str(home)])
    assert result.exit_code == 0, result.output
    listed = json.loads(result.stdout)
    assert [(item["name"], item["state"], item["on_disk"]) for item in listed] == [
        ("qwen2.5-coder-0.5b", "absent", 0),
        ("qwen2.5-coder-1.5b", "partial", 1000),
        (f"{tiny.REPOSITORY}@master", "present", 60_000),
    ]
    assert listed[2]["path"] == str(found.tokenizer.parent)


def test_models_as_a_table(program: typer.Typer, home: Path) -> None:
    result = CliRunner().invoke(program, ["models", "--home", str(home)])
    assert result.exit_code == 0, result.output
    for shown in ("qwen2.5-coder-0.5b", "491 MB", "1.12 GB", "Apache-2.0", "no"):
        assert shown in result.stdout


def test_a_truncated_model_is_not_listed_as_present(hub: StandIn, home: Path, told: Told) -> None:
    content = tiny.gguf()
    entry = tiny.entry(content, tiny.from_hub())
    hub.repositories[tiny.REPOSITORY] = {"master": {tiny.FILE: content}}
    weights = tiny.files(Store(home, (entry,)).pull(tiny.NAME, PullOptions(), told)).weights
    assert inventory(home, (entry,))[0].state == "present"
    weights.write_bytes(content[:100])
    assert inventory(home, (entry,))[0].state == "partial"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=100)
    with pull_progress(console) as progress:
        progress.start(1000, "tiny")
        progress.advance(400)
        progress.note("a [note]")
        progress.advance(1000)
        progress.done()
        progress.advance(5)
    shown = capsys.readouterr().out
    assert "tiny" in shown
    assert "a [note]" in shown
    assert "1.0/1.0 kB" in shown
