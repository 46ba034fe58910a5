"""The scripts of the repository: they parse, they can be run, and they fail in one clear line."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [*sorted((ROOT / "scripts").iterdir()), ROOT / ".ci" / "run"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_bash_and_can_be_run(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    if script.name != "environment":  # sourced by the others
        assert os.access(script, os.X_OK)
        assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n# ")
        assert "set -euo pipefail" in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["serve", "test", "lint"])
def test_a_python_that_does_not_suit_is_one_clear_line(name: str, tmp_path: Path) -> None:
    # A copy, because the environment of this checkout exists already.
    for file in ("scripts/environment", f"scripts/{name}"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text((ROOT / file).read_text(encoding="utf-8"), encoding="utf-8")
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    done = subprocess.run(
        ["bash", tmp_path / "scripts" / name],
        env={"PATH": os.environ["PATH"], "PYTHON": str(old)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"No Python from 3.11 to 3.13 was found at {old}."
    assert "PYTHON=" in done.stderr.splitlines()[1]


_ENVIRONMENT = """\
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root"
prepare_environment() { :; }
fail() { exit 1; }
"""


@pytest.mark.parametrize("pulls", [True, False])
@pytest.mark.parametrize("arguments", [[], ["-k", "name"]])
def test_lint_runs_with_the_whole_suite_with_a_model_or_without(
    tmp_path: Path, pulls: bool, arguments: list[str]
) -> None:
    stand_ins = {
        "scripts/environment": _ENVIRONMENT,
        "scripts/lint": "#!/bin/sh\necho lint\n",
        "bin/qwen-openai": f"#!/bin/sh\nexit {0 if pulls else 1}\n",
        "bin/python": '#!/bin/sh\necho "$@"\n',
    }
    for file, text in stand_ins.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text, encoding="utf-8")
        (tmp_path / file).chmod(0o755)
    script = tmp_path / "scripts" / "test"
    script.write_text((ROOT / "scripts/test").read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        ["bash", script, *arguments],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    pytest_line = " ".join(["-m pytest", *([] if pulls else ["-m not real"]), *arguments])
    assert done.stdout.splitlines() == [*([] if arguments else ["lint"]), pytest_line]
    assert done.returncode == 0


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_with_hashes_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert all("==" in entry and entry.endswith("\\") for entry in entries)
    assert not any(word in text for word in ("://", "--index", "--find-links", "torch=="))


def test_the_locks_hold_what_the_project_asks_for_and_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime, development = _pins("requirements.lock"), _pins("requirements-dev.lock")
    assert runtime.items() <= development.items()
    extras = project["optional-dependencies"]["dev"]
    assert {_name(each) for each in project["dependencies"]} <= set(runtime)
    assert {_name(each) for each in extras} <= set(development)


def _pins(lock: str) -> dict[str, str]:
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    pins = (line.split(" ")[0].split("==") for line in lines if "==" in line.split(" ")[0])
    return {_name(name): version for name, version in pins}


def _name(requirement: str) -> str:
    for end, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:end].lower().replace("_", "-")
    return requirement.lower().replace("_", "-")
