"""The database as the commands find it: where a server with the same settings would."""

import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from qwen_openai import settings
from qwen_openai.errors import StartupError
from qwen_openai.gateway.keys import KeyCount
from qwen_openai.gateway.store.database import exposed, opened, path_of
from qwen_openai.gateway.store.keys import count_good, count_made
from qwen_openai.settings import Settings


def with_database(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --database and --config.

    ``command`` takes the file's path first; its other parameters stay options of their own.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    def run(*, database: str | None, config: Path | None, **values: object) -> None:
        command(database_of(database, config), **values)

    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    parameters = [*own, *_options()]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what typer reads
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    return run


def database_of(database: str | None, config: Path | None) -> Path:
    """Return the file that a flag, the environment or a config file names, or the usual one. Raises
    StartupError where the settings want none."""
    path = path_of(settings.load({"database": database}, config=config).settings)
    if path is None:
        raise StartupError(
            "The setting 'database' is off, so there is no place for keys and usage.",
            fix="Give a file with --database, here and to `qwen-openai serve`.",
        )
    return path


def count_keys(settings: Settings) -> KeyCount:
    """Count the keys that a server with these settings will have. Raises StartupError where their
    file is there and cannot be used."""
    path = _path_of_server(settings)
    if path is None or not os.path.exists(path):  # unlike Path's it never fails
        return KeyCount()
    with opened(path) as connection:
        return KeyCount(count_good(connection, now=time.time()), count_made(connection))


def exposure_of(settings: Settings) -> str:
    """Return a warning where other users may read or write the server's file; "" for none."""
    path = _path_of_server(settings)
    return "" if path is None else exposed(path)


def _path_of_server(settings: Settings) -> Path | None:
    try:
        return path_of(settings)
    except StartupError:
        return None  # a server does without


def _options() -> list[inspect.Parameter]:
    file = typer.Option(
        "--database",
        metavar="FILE",
        show_default=False,
        help="The server's database (QWEN_OPENAI_DATABASE; default in the user's state folder)",
    )
    config = typer.Option(
        "--config",
        metavar="FILE",
        show_default=False,
        help="The server's config file, which may name the database (QWEN_OPENAI_CONFIG)",
    )
    return [
        _option("database", Annotated[str | None, file]),
        _option("config", Annotated[Path | None, config]),
    ]


def _option(name: str, annotation: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
