"""What the start panel says, framed and plain."""

import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from qwen_openai.cli.panel import Ready, commands, key_status, rows, show
from qwen_openai.engines.base import EngineInfo
from qwen_openai.gateway.keys import KeyCount
from qwen_openai.settings import Settings, load

INFO = EngineInfo(
    engine="llamacpp",
    model="qwen2.5-coder-0.5b",
    device="CPU, 2 threads",
    context=8192,
    slots=4,
    memory=3 * 2**29,
    facts=(("prompt cache", "on"),),
)


def _ready(info: EngineInfo = INFO, **flags: object) -> Ready:
    return Ready(load(flags, environ={}).settings, info, 6006, 1.23)


def _shown(ready: Ready, *, terminal: bool) -> str:
    out = io.StringIO()
    show(Console(file=out, force_terminal=terminal, width=72, color_system=None), ready)
    return out.getvalue()


def test_the_rows_say_what_runs_and_where() -> None:
    assert dict(rows(_ready())) == {
        "model": "qwen2.5-coder-0.5b",
        "engine": "llamacpp",
        "device": "CPU, 2 threads",
        "context": "8,192 tokens an answer, 4 answers at a time",
        "memory": "1.5 GiB",
        "prompt cache": "on",
        "OpenAI API": "http://127.0.0.1:6006/v1",
        "POST /": "http://127.0.0.1:6006",
        "docs": "http://127.0.0.1:6006/docs",
        "API key": "none; only this machine can reach the server",
        "started in": "1.2 s",
    }


def test_rows_without_facts_are_left_out() -> None:
    info = EngineInfo(engine="fake", model="fake", device="none", context=100, slots=1)
    shown = dict(rows(_ready(info, docs=False, served_model_name="a,b")))
    assert "memory" not in shown
    assert "docs" not in shown
    assert shown["model"] == "a, b"
    assert shown["context"] == "100 tokens, one answer at a time"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:6006"),
        ("0.0.0.0", "http://127.0.0.1:6006"),
        ("::", "http://[::1]:6006"),
        ("::1", "http://[::1]:6006"),
        ("gpu-box", "http://gpu-box:6006"),
    ],
)
def test_the_url_can_be_opened_from_this_machine(host: str, url: str) -> None:
    assert _ready(host=host).url == url


@pytest.mark.parametrize(
    ("keys", "without", "with_master"),
    [
        (KeyCount(), "none; only this machine can reach the server", "the master key"),
        (KeyCount(1, 1), "1 key", "the master key and 1 key"),
        (KeyCount(3, 5), "3 keys", "the master key and 3 keys"),
        (KeyCount(0, 5), "all keys are revoked or expired: nobody may come in", "the master key"),
    ],
)
def test_who_may_use_the_server(keys: KeyCount, without: str, with_master: str) -> None:
    assert key_status(Settings(), keys).endswith(without)
    assert key_status(Settings(), keys).startswith("required") is bool(keys.made)
    master = load({"api_key": "k"}, environ={}).settings
    assert key_status(master, keys) == f"required of every client: {with_master}"


def test_an_open_server_is_shouted() -> None:
    assert key_status(Settings(host="0.0.0.0", insecure_no_auth=True)).startswith("NONE")


def test_the_commands_send_a_key_where_one_is_asked_for() -> None:
    ready = replace(_ready(), keys=KeyCount(1, 1))
    assert all('-H "Authorization: Bearer $OPENAI_API_KEY"' in line for line in commands(ready))
    assert not any("Authorization" in line for line in commands(_ready()))


def test_the_commands_are_shell_words_that_curl_takes() -> None:
    legacy, chat = (shlex.split(line) for line in commands(_ready()))
    assert legacy[:4] == ["curl", "-X", "POST", "http://127.0.0.1:6006"]
    assert legacy[-2:] == ["-d", '{"prompt": "你好", "history": []}']
    assert chat[1] == "http://127.0.0.1:6006/v1/chat/completions"
    assert '"model": "qwen2.5-coder-0.5b"' in chat[-1]


def test_a_key_is_never_shown() -> None:
    shown = _shown(_ready(api_key="hunter2"), terminal=False)
    assert "hunter2" not in shown
    assert shown.count('-H "Authorization: Bearer $QWEN_OPENAI_API_KEY"') == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_commands_are_printed_whole_and_alone_on_their_lines(terminal: bool) -> None:
    shown = _shown(_ready(), terminal=terminal)
    assert all(line in shown.splitlines() for line in commands(_ready()))


def test_a_pipe_gets_plain_lines() -> None:
    shown = _shown(_ready(), terminal=False)
    assert shown.replace("\n", "").isprintable()
    assert "╭" not in shown
    assert "  OpenAI API    http://127.0.0.1:6006/v1\n" in shown
    assert "╭" in _shown(_ready(), terminal=True)


@dataclass(frozen=True)
class Fares:
    place: str
    models: tuple[str, ...]
    state: str

    @property
    def name(self) -> str:
        return f"at-{self.place[0]}"


def _fronted(upstreams: Sequence[Fares], info: EngineInfo | None = None) -> Ready:
    urls = ",".join(f"http://{each.place}" for each in upstreams)
    settings = load({"upstreams": urls}, environ={}).settings
    own = [] if info is None else [info.model]
    names = dict.fromkeys([*own, *(name for each in upstreams for name in each.models)])
    return Ready(settings, info, 6006, 1.23, models=list(names), upstreams=upstreams)


def test_upstreams_are_shown_with_models_and_state() -> None:
    pair = [Fares("a:1", ("m", "n"), "up"), Fares("b:2", (), "open")]
    ready = _fronted(pair)
    shown = rows(ready)
    assert shown[:3] == [
        ("models", "m, n"),
        ("upstream at-a", "a:1 answers: m, n"),
        ("upstream at-b", "b:2 DOES NOT ANSWER"),
    ]
    assert "engine" not in dict(shown)
    assert '"model": "m"' in shlex.split(commands(ready)[1])[-1]


def test_a_model_here_comes_before_those_of_upstreams() -> None:
    ready = _fronted([Fares("a:1", ("m",), "unknown")], INFO)
    shown = dict(rows(ready))
    assert shown["model"] == INFO.model
    assert shown["and models"] == "m"
    assert shown["upstream at-a"] == "a:1 not looked at yet: m"
    assert f'"model": "{INFO.model}"' in shlex.split(commands(ready)[1])[-1]


def test_many_upstreams_are_counted_and_not_listed() -> None:
    states = ["up"] * 9 + ["open"]
    shown = dict(rows(_fronted([Fares(f"h{i}:1", (), state) for i, state in enumerate(states)])))
    assert shown["models"] == "none yet: no upstream has answered"
    assert shown["and 2 more"] == "1 of them answer"
