"""The real `serve` in front of mocks: what its panel says, and settings loaded while it runs."""

import json
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import environment, run
from tests.live import call
from tests.upstream.process import (
    GatewayProcess,
    Mock,
    ask,
    config_of,
    free_port,
    gateway_process,
    mocks,
)


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Mock]]:
    with mocks("a", "b") as made:
        yield made


def _lines(gateway: GatewayProcess, event: str) -> list[dict[str, Any]]:
    """The log lines of one kind, of the loggers that write JSON."""
    lines = gateway.log.read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in found if line.get("event") == event]


def _until_said(gateway: GatewayProcess, event: str, times: int = 1) -> dict[str, Any]:
    end = time.monotonic() + 20
    while len(said := _lines(gateway, event)) < times:
        assert time.monotonic() < end, gateway.log.read_text()
        time.sleep(0.01)
    return said[-1]


def _names(gateway: GatewayProcess) -> list[str]:
    models = ask(gateway.port, "GET", "/v1/models")[1]
    return [model["id"] for model in models["data"]]


def test_the_panel_names_upstreams_and_models_and_its_commands_work(
    pair: list[Mock], tmp_path: Path
) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    urls = ",".join([*(mock.url for mock in pair), gone])
    env = {"QWEN_OPENAI_UPSTREAMS": urls, "QWEN_OPENAI_ALIASES": "gpt-4o=m"}
    words = ("--engine", "upstream", "--database", "off")
    gateway = GatewayProcess(tmp_path, *words)
    try:
        gateway.start(env)
        panel = gateway.log.read_text()
        while panel.count("curl ") < 2:
            panel = gateway.log.read_text()
        assert "  models                    m, gpt-4o\n" in panel
        for mock in pair:
            assert f"  127.0.0.1:{mock.port} answers: m\n" in panel
        assert panel.count("  upstream upstream-") == 3
        assert "answers" not in panel.partition(gone[7:])[2].partition("\n")[0]
        for line in panel.splitlines():
            if line.startswith("curl "):
                words_of = shlex.split(line)
                url = next(word for word in words_of if word.startswith("http://"))
                path = url.removeprefix(f"http://127.0.0.1:{gateway.port}") or "/"
                assert call(gateway.port, "POST", path, words_of[-1].encode()).status == 200
    finally:
        gateway.close()


def test_a_model_beside_upstreams_is_answered_here(pair: list[Mock], tmp_path: Path) -> None:
    words = ("--engine", "fake", "--upstreams", pair[0].url)
    with gateway_process(tmp_path, [], *words) as gateway:
        gateway.wait_ready()
        assert _names(gateway) == ["fake", "m"]
        body = {"messages": [{"role": "user", "content": "echo me"}]}
        here = ask(gateway.port, "POST", "/v1/chat/completions", {**body, "model": "fake"})
        assert here[1]["choices"][0]["message"]["content"] == "echo me"
        there = ask(gateway.port, "POST", "/v1/chat/completions", {**body, "model": "m"})
        assert (there[0], there[1]["model"]) == (200, "m")


def test_upstreams_alone_need_one(tmp_path: Path) -> None:
    done = run("serve", "--engine", "upstream", env=environment(tmp_path))
    assert done.returncode == 1
    assert "no upstreams are set" in done.stderr
    assert "--upstreams http://" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_file_and_a_hangup_load_settings_anew(pair: list[Mock], tmp_path: Path) -> None:
    a, b = pair
    config = tmp_path / "gateway.toml"
    with gateway_process(tmp_path, [a]) as gateway:
        gateway.wait_ready()
        assert gateway.process is not None
        # The file alone, replaced as editors do it.
        fresh = tmp_path / "fresh"
        fresh.write_text(config_of([a, b], 'aliases = {gpt-4o = "m"}\nslots = 9'))
        fresh.replace(config)
        line = _until_said(gateway, "settings reloaded")
        assert line["changed"] == ["upstreams", "aliases"]
        assert line["needs_restart"] == ["slots"]
        assert _names(gateway) == ["m", "gpt-4o"]
        # A file that is no good changes nothing and ends nothing, and shows no secret.
        config.write_text('[[upstreams]]\nurl = "http://x"\napi_key = "sk-hunter2"\nwieght = 1\n')
        gateway.signal(signal.SIGHUP)
        refused = _until_said(gateway, "settings not reloaded")
        assert "wieght" in refused["reason"]
        assert _names(gateway) == ["m", "gpt-4o"]
        config.write_text(config_of([b], "requests_per_minute = 1"))
        gateway.signal(signal.SIGHUP)
        line = _until_said(gateway, "settings reloaded", 2)
        assert "requests_per_minute" in line["changed"]
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        answers = [ask(gateway.port, "POST", "/v1/chat/completions", body)[0] for _ in range(2)]
        assert 200 in answers
        assert answers != [200, 200]
        assert "hunter2" not in gateway.log.read_text()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0


def test_a_hangup_without_a_file_ends_nothing(pair: list[Mock], tmp_path: Path) -> None:
    words = ("--engine", "upstream", "--upstreams", pair[0].url, "--database", "off")
    gateway = GatewayProcess(tmp_path, *words)
    try:
        gateway.start()
        gateway.signal(signal.SIGHUP)
        _until_said(gateway, "nothing to reload: the server was started without --config")
        assert ask(gateway.port, "GET", "/health/live")[0] == 200
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
    finally:
        gateway.close()
