"""docker-compose.yml and the image: what the client makes of each profile, and what must agree.

No engine runs here, so nothing is built or started.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qwen_openai.settings import load

ROOT = Path(__file__).parents[1]
PROFILES = {"cpu": {"cpu"}, "gpu": {"gpu"}, "vllm": {"gateway", "vllm-1", "vllm-2"}}


def _compose() -> list[str]:
    """The command of the compose client; skips without one."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run(
                [*command, "version"], capture_output=True, text=True, timeout=30, check=False
            )
            if done.returncode == 0:
                return command
    pytest.skip("no docker compose client on this machine")


@pytest.mark.parametrize("profile", PROFILES)
def test_the_client_takes_each_profile(profile: str) -> None:
    command = [*_compose(), "--profile", profile, "config", "--services"]
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    # Version 1 of the client lists the services of all profiles, version 2 those of this one.
    assert PROFILES[profile] <= set(done.stdout.split())


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="no YAML reader is installed")
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)["services"]
    assert isinstance(found, dict)
    return found


def test_every_service_has_one_profile(services: dict[str, Any]) -> None:
    by_profile: dict[str, set[str]] = {}
    for name, service in services.items():
        (profile,) = service["profiles"]
        by_profile.setdefault(profile, set()).add(name)
    assert by_profile == PROFILES


def test_there_is_more_time_to_stop_than_the_drain_takes(services: dict[str, Any]) -> None:
    for name in ("cpu", "gpu", "gateway"):
        service = services[name]
        command = service.get("command", ["serve"])
        assert command[0] == "serve"
        config = ROOT / "configs" / Path(command[-1]).name if len(command) > 1 else None
        settings = load(environ={}, config=config).settings
        assert float(service["stop_grace_period"].removesuffix("s")) > settings.drain_timeout + 5
        assert service["ports"][0].endswith(f":{settings.port}:{settings.port}")
        assert service["ports"][0].startswith("${QWEN_OPENAI_BIND:-127.0.0.1}")
        assert "state:/state" in service["volumes"]


def test_the_gateway_waits_for_the_replicas_that_it_stands_before(services: dict[str, Any]) -> None:
    settings = load(environ={}, config=ROOT / "configs" / "vllm.toml").settings
    waited_for = services["gateway"]["depends_on"]
    assert [each.name for each in settings.upstreams] == list(waited_for)
    for upstream in settings.upstreams:
        assert waited_for[upstream.name] == {"condition": "service_healthy"}
        assert upstream.url == f"http://{upstream.name}:8000/v1"
        assert services[upstream.name]["healthcheck"]["test"][0] == "CMD"


def test_no_secret_is_in_the_files(services: dict[str, Any]) -> None:
    for name in ("cpu", "gpu", "gateway"):
        assert services[name]["environment"]["QWEN_OPENAI_API_KEY"] is None  # the shell's
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored  # what is not named stays out


def test_the_image_copies_what_is_there_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert list(ROOT.glob(name)), name
            assert f"!{name}" in kept or "*" in name, name
    user = text.index("\nUSER qwen\n")
    assert user < text.index("\nENTRYPOINT ")
    assert "--require-hashes" in text
    assert text.index("torch==") > text.index('if [ -n "$EXTRA" ]')


def test_the_health_check_is_one_that_python_can_run() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r'CMD \["python", "-c", "(.*)"\]', text)
    assert found is not None
    compile(found[1], "HEALTHCHECK", "exec")
