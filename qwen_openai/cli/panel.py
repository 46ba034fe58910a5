"""What `serve` shows once it answers: what runs, where, for whom, and two lines to copy.

A framed table on a terminal, plain lines elsewhere. The commands stand below the frame, unwrapped,
so that copying them copies nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qwen_openai import __version__
from qwen_openai.engines.base import EngineInfo
from qwen_openai.gateway.keys import NO_KEYS, KeyCount
from qwen_openai.settings import Settings

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared with, never bound)


# More than these are counted and not listed.
_MOST_UPSTREAMS = 8
_STATES = {
    "up": "answers",
    "unknown": "not looked at yet",
    "open": "DOES NOT ANSWER",
    "probing": "being tried again",
}


class Upstream(Protocol):
    """What the pool tells of one upstream: name, host and port, what it serves, how it fares."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str: ...
    @property
    def models(self) -> Sequence[str]: ...
    @property
    def state(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that answers. ``info`` is of the engine that runs here, None where only upstreams
    answer; ``seconds`` is what its start took. ``models`` are the names that it answers to, the
    usual one first."""

    settings: Settings
    info: EngineInfo | None
    port: int
    seconds: float
    models: Sequence[str] = ()
    upstreams: Sequence[Upstream] = ()
    keys: KeyCount = NO_KEYS

    @property
    def url(self) -> str:
        """The root URL as this machine reaches it, without a slash at the end."""
        host = _EVERYWHERE.get(self.settings.host, self.settings.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def rows(ready: Ready) -> list[tuple[str, str]]:
    """Label and text of each line, top to bottom."""
    info, settings = ready.info, ready.settings
    lines = [] if info is None else _engine_rows(settings, info)
    lines += _upstream_rows(ready)
    lines += [("OpenAI API", f"{ready.url}/v1"), ("POST /", ready.url)]
    if settings.docs:
        lines.append(("docs", f"{ready.url}/docs"))
    if settings.host in _EVERYWHERE:
        lines.append(("listens on", f"every interface, port {ready.port}"))
    lines += [
        ("API key", key_status(settings, ready.keys)),
        ("started in", f"{ready.seconds:.1f} s"),
    ]
    return lines


def _upstream_rows(ready: Ready) -> list[tuple[str, str]]:
    if not ready.upstreams:
        return []
    own = 0 if ready.info is None else max(1, len(ready.settings.served_model_name))
    pooled = ready.models[own:]
    shown = [(f"upstream {each.name}", _fares(each)) for each in ready.upstreams[:_MOST_UPSTREAMS]]
    further = len(ready.upstreams) - len(shown)
    if further:
        up = sum(each.state == "up" for each in ready.upstreams[_MOST_UPSTREAMS:])
        shown.append((f"and {further} more", f"{up} of them answer"))
    label = "models" if ready.info is None else "and models"
    return [(label, ", ".join(pooled) or "none yet: no upstream has answered"), *shown]


def _fares(upstream: Upstream) -> str:
    state = f"{upstream.place} {_STATES.get(upstream.state, upstream.state)}"
    return f"{state}: {', '.join(upstream.models)}" if upstream.models else state


def _engine_rows(settings: Settings, info: EngineInfo) -> list[tuple[str, str]]:
    lines = [
        ("model", ", ".join(settings.served_model_name) or info.model),
        ("engine", info.engine),
        ("device", info.device),
        ("context", _context(info)),
    ]
    if info.memory:
        lines.append(("memory", f"{info.memory / 2**30:.1f} GiB"))
    return [*lines, *info.facts]


def _context(info: EngineInfo) -> str:
    if info.slots == 1:
        return f"{info.context:,} tokens, one answer at a time"
    return f"{info.context:,} tokens an answer, {info.slots} answers at a time"


def key_status(settings: Settings, keys: KeyCount = NO_KEYS) -> str:
    """Who may use the server, in a few words."""
    master = settings.api_key is not None
    if master or keys.good:
        made = f"{keys.good} key{'' if keys.good == 1 else 's'}" if keys.good else ""
        who = " and ".join(filter(None, ("the master key" if master else "", made)))
        return f"required of every client: {who}"
    if keys.made:
        return "required, but all keys are revoked or expired: nobody may come in"
    if settings.is_loopback():
        return "none; only this machine can reach the server"
    return "NONE; whoever reaches this address may use it"


def commands(ready: Ready) -> list[str]:
    """Shell commands that work as they stand; a key is named, never shown."""
    key = _key_header(ready)
    own = () if ready.info is None else (*ready.settings.served_model_name, ready.info.model)
    listed = [name for each in ready.settings.upstreams for name in each.models]
    model = (*own, *ready.models, *listed, "MODEL")[0]
    send = f"-H 'Content-Type: application/json'{key} -d"
    return [
        f'curl -X POST "{ready.url}" {send} \'{{"prompt": "你好", "history": []}}\'',
        f'curl "{ready.url}/v1/chat/completions" {send}'
        f' \'{{"model": "{model}", "messages": [{{"role": "user", "content": "你好"}}]}}\'',
    ]


def show(console: Console, ready: Ready) -> None:
    """Print it all."""
    title = f"qwen-openai {__version__} is ready"
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        for label, text in rows(ready):
            table.add_row(Text(label, style="dim"), Text(text))
        console.print(Panel(table, title=title, title_align="left", expand=False))
    else:
        _plain(console, title)
        lines = rows(ready)
        width = max(len(label) for label, _ in lines)
        for label, text in lines:
            _plain(console, f"  {label:<{width}}  {text}")
    _plain(console, "\nTry it:\n")
    for command in commands(ready):
        _plain(console, f"{command}\n")


def _plain(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _key_header(ready: Ready) -> str:
    if ready.settings.api_key is None and not ready.keys.made:
        return ""
    variable = "QWEN_OPENAI_API_KEY" if ready.settings.api_key else "OPENAI_API_KEY"
    return f' -H "Authorization: Bearer ${variable}"'
