"""`qwen-openai chat`: connects to a gateway, or starts one, and carries the conversation's actions
out: asks, shows, saves.
"""

import io
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_openai import settings
from qwen_openai.cli.conversation import Ask, Conversation, Leave, Save, Tell
from qwen_openai.errors import StartupError

if TYPE_CHECKING:
    from qwen_openai.cli.client import Client
    from qwen_openai.cli.terminal import Terminal


def chat(
    local_model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Run this model here, for this chat only (a name, a ModelScope id, a path).",
            show_default=False,
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The gateway to talk to; QWEN_OPENAI_BASE_URL does too. Default: this machine's.",
            show_default=False,
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="The gateway's key; QWEN_OPENAI_API_KEY keeps it out of the process list.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Which of the gateway's models. Default: its first.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The system message.", show_default=False)
    ] = None,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines", metavar=" ", help="From a pipe: each line is a question of one conversation."
        ),
    ] = False,
) -> None:
    """Chat in the terminal with a gateway, or with a model run here.

    Without a name it talks to the gateway on this machine.

      qwen-openai chat
      qwen-openai chat qwen2.5-coder-0.5b
      qwen-openai chat --base-url http://gpu-box:6006/v1
      echo "What is a monad?" | qwen-openai chat

    /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.
    """
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    with ExitStack() as stack:
        client, model = _connect(stack, _Wish(local_model, base_url, api_key, model), interactive)
        conversation = Conversation(system)
        if interactive:
            _talk(client, model, conversation)
        else:
            _answer_pipe(client, model, conversation, _questions(lines))


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the user said about whom to talk to."""

    local_model: str | None
    base_url: str | None
    api_key: str | None
    model: str | None


def _connect(stack: ExitStack, wish: _Wish, interactive: bool) -> tuple["Client", str]:
    """Return a gateway that answers and the model to ask for. Raises StartupError."""
    from qwen_openai.cli.client import Client, GatewayUnreachable

    if wish.local_model is not None:
        if wish.base_url is not None:
            raise StartupError(
                f"Both a model to run here ({wish.local_model}) and a gateway are given.",
                fix=f"For a model of that gateway write --model {wish.local_model}.",
            )
        return _run_here(stack, wish.local_model)
    own = settings.load().settings
    base_url = wish.base_url or os.environ.get("QWEN_OPENAI_BASE_URL") or None
    key = wish.api_key or (own.api_key.get_secret_value() if own.api_key else None)
    client = stack.enter_context(closing(Client(base_url or _own_url(own), key)))
    try:
        return client, wish.model or _first(client)
    except GatewayUnreachable:
        if base_url is not None or not interactive:
            raise
    typer.echo(f"No gateway answers at {client.base_url}.")
    if not typer.confirm(f"Run {own.model} here, for this chat?", default=True):
        raise typer.Exit(1)
    return _run_here(stack, own.model)


def _run_here(stack: ExitStack, model: str) -> tuple["Client", str]:
    from qwen_openai.cli.client import Client
    from qwen_openai.cli.local import ChildFailed, LocalGateway

    try:
        gateway = stack.enter_context(LocalGateway(model))
    except ChildFailed as failure:
        raise typer.Exit(failure.code or 1) from None
    client = stack.enter_context(closing(Client(gateway.base_url, gateway.api_key)))
    return client, _first(client)


def _own_url(own: settings.Settings) -> str:
    """Where `serve` with these settings would answer, seen from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(own.host, own.host)  # noqa: S104 (no bind)
    return f"http://[{host}]:{own.port}/v1" if ":" in host else f"http://{host}:{own.port}/v1"


def _first(client: "Client") -> str:
    names = client.model_names()
    if not names:
        raise StartupError(
            f"The gateway at {client.base_url} lists no models.", fix="Name one with --model."
        )
    return names[0]


def _talk(client: "Client", model: str, conversation: Conversation) -> None:
    """Read, answer, until the user leaves."""
    from qwen_openai.cli.terminal import Terminal

    terminal = Terminal(conversation.command_names)
    terminal.tell(f"{model} at {client.base_url}. /help lists the commands, Ctrl-D leaves.")
    while True:
        try:
            action = conversation.read(terminal.ask())
        except KeyboardInterrupt:
            terminal.tell("Ctrl-D or /exit leaves.")
            continue
        except EOFError:
            return
        match action:
            case Ask(messages):
                _answer(terminal, conversation, client.stream(model, messages))
            case Tell(text):
                terminal.tell(text)
            case Save(name, document):
                terminal.tell(save(name, document))
            case Leave():
                return


def _answer(
    terminal: "Terminal", conversation: Conversation, pieces: Generator[str, None, None]
) -> None:
    """Show an answer as it comes. Ctrl-C ends it; what was shown of it is kept."""
    from qwen_openai.cli.client import RequestFailed

    said: list[str] = []
    note = ""
    try:
        with closing(pieces):
            for piece in pieces:
                said.append(piece)
                terminal.piece(piece)
    except KeyboardInterrupt:
        note = "(stopped)"
    except RequestFailed as failure:
        note = str(failure)
    terminal.piece("\n")
    if note:
        terminal.tell(note)
    if said:
        conversation.answered("".join(said))
    else:
        conversation.unanswered()


def save(name: str, document: str) -> str:
    """Write a conversation to a new file and return a sentence that says where, or why not."""
    path = Path(name or time.strftime("chat-%Y%m%d-%H%M%S.json")).expanduser().absolute()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(document)
    except FileExistsError:
        return f"{path} exists already; give another name."
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}."
    return f"Saved to {path}"


def _questions(one_a_line: bool) -> Iterator[str]:
    """What standard input asks: all of it, or each line that is not blank."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    texts = sys.stdin if one_a_line else [sys.stdin.read()]
    return (text.strip() for text in texts if text.strip())


def _answer_pipe(
    client: "Client", model: str, conversation: Conversation, questions: Iterable[str]
) -> None:
    """Answer each question on standard output, for scripts. Raises StartupError."""
    from qwen_openai.cli.client import RequestFailed

    for question in questions:
        said: list[str] = []
        try:
            for piece in client.stream(model, conversation.ask(question).messages):
                said.append(piece)
                sys.stdout.write(piece)
                sys.stdout.flush()
        except RequestFailed as failure:
            raise StartupError(
                f"The gateway did not answer: {failure}", fix="Its log says more, if it is yours."
            ) from None
        sys.stdout.write("\n")
        conversation.answered("".join(said))
    if not conversation.messages[-1:] or conversation.messages[-1]["role"] != "assistant":
        raise StartupError(
            "Standard input holds no question.", fix='Pipe one in: echo "你好" | qwen-openai chat'
        )
