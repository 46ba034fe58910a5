"""What `serve` shows once it answers: what runs, where, for whom, and two lines to copy.

A framed table on a terminal, plain lines elsewhere. The commands stand below the frame, unwrapped,
so that copying them copies nothing else.
"""

from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qwen_openai import __version__
from qwen_openai.engines.base import EngineInfo
from qwen_openai.settings import Settings

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared with, never bound)


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that answers. ``info`` is of the engine that runs here, None where only upstreams
    answer; ``seconds`` is what its start took."""

    settings: Settings
    info: EngineInfo | None
    port: int
    seconds: float

    @property
    def url(self) -> str:
        """The root URL as this machine reaches it, without a slash at the end."""
        host = _EVERYWHERE.get(self.settings.host, self.settings.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def rows(ready: Ready) -> list[tuple[str, str]]:
    """Label and text of each line, top to bottom."""
    info, settings = ready.info, ready.settings
    lines = [] if info is None else _engine_rows(settings, info)
    if settings.upstreams:
        lines.append(("upstreams", ", ".join(each.label for each in settings.upstreams)))
    lines += [("OpenAI API", f"{ready.url}/v1"), ("POST /", ready.url)]
    if settings.docs:
        lines.append(("docs", f"{ready.url}/docs"))
    if settings.host in _EVERYWHERE:
        lines.append(("listens on", f"every interface, port {ready.port}"))
    lines += [("API key", key_status(settings)), ("started in", f"{ready.seconds:.1f} s")]
    return lines


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


def key_status(settings: Settings) -> str:
    """Who may use the server, in a few words."""
    if settings.api_key is not None:
        return "required of every client"
    if settings.is_loopback():
        return "none; only this machine can reach the server"
    return "NONE; whoever reaches this address may use it"


def commands(ready: Ready) -> list[str]:
    """Shell commands that work as they stand; a key is named, never shown."""
    key = ' -H "Authorization: Bearer $QWEN_OPENAI_API_KEY"' if ready.settings.api_key else ""
    own = () if ready.info is None else (ready.info.model,)
    listed = [name for each in ready.settings.upstreams for name in each.models]
    model = (*ready.settings.served_model_name, *own, *listed, "MODEL")[0]
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
