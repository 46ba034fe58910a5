"""The tree of commands and the help that teaches them; each lives in a module of its own."""

import os
import platform
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from qwen_openai import __version__

# Name, module, and the first line of its help. Only the command that is called is imported: the
# others would take longer than the whole of `--help`.
COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("serve", "serve", "Serve a model over the OpenAI API and over POST /."),
    ("chat", "chat", "Chat in the terminal with a gateway, or with a model run here."),
    ("pull", "pull", "Fetch a model, or go on with an interrupted fetch, and verify it."),
    ("convert", "convert", "Convert a Qwen-1 model to the Qwen2 layout, for vLLM and others."),
    ("check", "check", "Try what clients rely on against any OpenAI-compatible server."),
    ("models", "pull", "List the models that can be had by name, and those on disk."),
    ("keys", "keys", "Make the keys that clients send, list, change and revoke them."),
    ("usage", "usage", "Show what was used, by day, key and model."),
    ("config", "config", "Show every setting: what holds, where it came from, what it means."),
)

# Those that are groups: their function returns a program of further commands.
GROUPS = frozenset({"keys"})

# Lines are kept as they stand, so they are at most 76 wide: that fits a terminal of 80.
_HELP = """\
Qwen behind the OpenAI API, on your own machine.

[bold]Start here[/bold]

  qwen-openai serve                  fetch the small Qwen, serve it on 6006
  qwen-openai chat                   talk to it in this terminal
  qwen-openai keys create anna       make a key, for clients to send
  qwen-openai serve --host 0.0.0.0   for others too; needs a key
  qwen-openai models                 which models there are
  qwen-openai config                 all settings: value, origin and meaning
"""


def build(arguments: Sequence[str]) -> typer.Typer:
    """Return the program, ready to be called with these arguments."""
    program = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback()(_common)
    called = next((each for each in arguments if not each.startswith("-")), None)
    completing = "_QWEN_OPENAI_COMPLETE" in os.environ
    for name, module, summary in COMMANDS:
        if not completing and name != called:
            program.command(name=name, help=summary)(_not_called)
        elif name in GROUPS:
            program.add_typer(load_group(name, module), name=name)
        else:
            program.command(name=name)(load_command(name, module))
    program.command(name="version")(show_version)
    return program


def load_command(name: str, module: str) -> Callable[..., None]:
    """Import the function behind a row of COMMANDS."""
    command: Callable[..., None] = getattr(import_module(f"qwen_openai.cli.{module}"), name)
    return command


def load_group(name: str, module: str) -> typer.Typer:
    """Import the commands behind a row of COMMANDS that is one of GROUPS."""
    make: Callable[[], typer.Typer] = getattr(import_module(f"qwen_openai.cli.{module}"), name)
    group = make()
    group.info.help = make.__doc__
    return group


def _not_called() -> None:
    raise AssertionError("a command that was not called ran")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _common(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar=" ",
            help="Print the version.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
    _debug: Annotated[
        bool,
        typer.Option("--debug", metavar=" ", help="Show a failure's traceback; goes anywhere."),
    ] = False,
) -> None:
    # The help of the program is in `build`; --debug is read by `main`.
    pass


def show_version() -> None:
    """Print the versions that a bug report needs."""
    typer.echo(f"qwen-openai {__version__}")
    typer.echo(f"Python {platform.python_version()} on {platform.platform()}")
    for package in ("fastapi", "uvicorn", "pydantic", "tokenizers", "xllamacpp", "openai"):
        try:
            typer.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            typer.echo(f"{package} is missing")
