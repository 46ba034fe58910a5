"""The scripts of the repository: they parse, they can be run, and they fail in one clear line."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-transformers.lock", "requirements-dev.lock")
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


# Stands in for .venv/bin/python: writes down what pip is asked for, and knows of torch by a file.
_PYTHON = """\
#!/bin/sh
case "$*" in
    *"-m pip install"*)
        echo "$*" >>pip.log
        case "$*" in *torch==*) touch has-torch ;; esac
        [ ! -e no-network ] ;;
    *qwen_openai.cli.extras*)
        case "$*" in *Qwen-7B-Chat*) echo transformers ;; esac ;;
    "- "*) [ -e has-torch ] ;;
esac
"""
_PIPS_MANNERS = re.compile(r"-m pip install|--disable-pip-version-check|--progress-bar off|--quiet")
_RUNTIME, _TRANSFORMERS, _DEVELOPMENT = LOCKS


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with an empty environment, in which nothing is really installed."""
    for name in ("scripts/environment", "scripts/serve", "pyproject.toml", *LOCKS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    for name, text in {"python": _PYTHON, "qwen-openai": '#!/bin/sh\necho "$@"\n'}.items():
        program = tmp_path / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
    return tmp_path


def _bash(checkout: Path, *command: str) -> tuple[list[str], str]:
    """Run a command in the checkout; give what pip was asked to install, and what was shown."""
    done = subprocess.run(
        ["bash", *command],
        cwd=checkout,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = checkout / "pip.log"
    asked = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    places = {f"{checkout}/": "", str(checkout): "."}
    for place, short in places.items():
        asked = [each.replace(place, short) for each in asked]
    return [" ".join(_PIPS_MANNERS.sub("", each).split()) for each in asked], done.stdout


def _prepare(checkout: Path, lock: str) -> list[str]:
    script = f"set -euo pipefail; source scripts/environment; prepare_environment {lock}"
    return _bash(checkout, "-c", script)[0]


def _stamps(checkout: Path) -> list[str]:
    return [file.name for file in (checkout / ".venv").glob(".installed-*")]


def _installs(lock: str) -> list[str]:
    return [
        f"--require-hashes --only-binary :all: -r {lock}",
        "--no-deps --no-build-isolation --editable .",
    ]


_TORCH = "--only-binary :all: torch==2.13.0"


def test_serve_installs_no_torch_for_the_default_model(checkout: Path) -> None:
    asked, shown = _bash(checkout, "scripts/serve", "--port", "0")
    assert asked == _installs(_RUNTIME)
    assert shown.splitlines()[-1] == "serve --port 0"
    assert _bash(checkout, "scripts/serve")[0] == []
    assert _stamps(checkout) == [f".installed-{_RUNTIME}"]


def test_serve_installs_torch_first_for_a_model_that_needs_it(checkout: Path) -> None:
    asked, shown = _bash(checkout, "scripts/serve", "Qwen/Qwen-7B-Chat")
    assert asked == [*_installs(_RUNTIME), _TORCH, *_installs(_TRANSFORMERS)]
    assert shown.splitlines()[-1] == "serve Qwen/Qwen-7B-Chat"
    sizes = [line for line in shown.splitlines() if line.startswith("Installing")]
    assert len(sizes) == 3
    assert all(" GB" in line for line in sizes)
    assert _bash(checkout, "scripts/serve", "Qwen/Qwen-7B-Chat")[0] == []


def test_a_richer_environment_is_never_taken_down(checkout: Path) -> None:
    assert _prepare(checkout, _DEVELOPMENT) == [_TORCH, *_installs(_DEVELOPMENT)]
    for arguments in ((), ("Qwen/Qwen-7B-Chat",)):
        assert _bash(checkout, "scripts/serve", *arguments)[0] == []
    assert _stamps(checkout) == [f".installed-{_DEVELOPMENT}"]
    # A new lock is installed at the next start, in its richer form.
    with (checkout / _DEVELOPMENT).open("a", encoding="utf-8") as lock:
        lock.write("# new\n")
    assert _bash(checkout, "scripts/serve")[0] == _installs(_DEVELOPMENT)


def test_a_torch_of_the_users_own_stays(checkout: Path) -> None:
    (checkout / "has-torch").touch()
    assert _prepare(checkout, _TRANSFORMERS) == _installs(_TRANSFORMERS)


def test_what_failed_to_install_is_tried_again(checkout: Path) -> None:
    (checkout / "no-network").touch()
    asked, shown = _bash(checkout, "scripts/serve")
    assert len(asked) == 1
    assert "run scripts/serve again" in shown
    assert _stamps(checkout) == []
    (checkout / "no-network").unlink()
    assert _bash(checkout, "scripts/serve")[0] == _installs(_RUNTIME)


# What a build of torch brings for itself differs from machine to machine.
_TORCHS_OWN = {"torch", "triton", "sympy", "mpmath", "networkx"}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_with_hashes_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert all("==" in entry and entry.endswith("\\") for entry in entries)
    assert not any(word in text for word in ("://", "--index", "--find-links"))
    names = set(_pins(lock))
    assert not names & _TORCHS_OWN
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in names)


def test_the_locks_hold_what_the_project_asks_for_and_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime, transformers, development = (_pins(lock) for lock in LOCKS)
    assert runtime.items() <= transformers.items() <= development.items()
    extras = project["optional-dependencies"]
    assert {_name(each) for each in project["dependencies"]} <= set(runtime)
    assert {_name(each) for each in extras["transformers"]} - {"torch"} <= set(transformers)
    assert {_name(each) for each in extras["dev"]} <= set(development)


def test_the_torch_that_is_installed_is_one_that_the_project_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (asked,) = (
        Requirement(each)
        for each in project["optional-dependencies"]["transformers"]
        if _name(each) == "torch"
    )
    environment = (ROOT / "scripts" / "environment").read_text(encoding="utf-8")
    (pinned,) = re.findall(r'^torch="(.+)"$', environment, re.MULTILINE)
    assert pinned in asked.specifier
    assert _TORCH.endswith(f"=={pinned}")


def _pins(lock: str) -> dict[str, str]:
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    pins = (line.split(" ")[0].split("==") for line in lines if "==" in line.split(" ")[0])
    return {_name(name): version for name, version in pins}


def _name(requirement: str) -> str:
    for end, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:end].lower().replace("_", "-")
    return requirement.lower().replace("_", "-")
