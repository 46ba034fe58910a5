"""One command-line flag for each setting, made from `Settings`, so that none can be forgotten.

Flags are handed on as written: `settings.load` merges and validates them with the other sources.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from qwen_openai import settings
from qwen_openai.settings import GROUPS, Loaded, Settings

_METAVARS = {
    "port": "PORT",
    "host": "ADDRESS",
    "home": "FOLDER",
    "api_key": "KEY",
    "upstreams": "URLS",
    "aliases": "ALIAS=MODEL,...",
    "database": "FILE",
    "cors_origins": "ORIGINS",
    "trusted_proxies": "NETWORKS",
}


class Flags:
    """The flags that were given, and the config file."""

    def __init__(self, given: Mapping[str, object], config: Path | None) -> None:
        self.given = given
        self._config = config

    def load(self) -> Loaded:
        """Merge them with the environment and the file. Raises StartupError."""
        return settings.load(self.given, config=self._config)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument MODEL, --config and a flag for each setting.

    ``command`` takes a Flags first; its other parameters stay options of their own.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    def run(*, config: Path | None, **values: object) -> None:
        given = {name: values.pop(name) for name in Settings.model_fields}
        command(Flags(given, config), **values)

    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    parameters = [_model_argument(), _config_option(), *_setting_options(), *own]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what typer reads
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    return run


def _parameter(name: str, kind: object, info: Any) -> inspect.Parameter:  # noqa: ANN401 (typer's own type is Any)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, info],
    )


def _model_argument() -> inspect.Parameter:
    field = Settings.model_fields["model"]
    text = f"What to serve: {field.description} (default {field.default})"
    return _parameter("model", str | None, typer.Argument(help=text, show_default=False))


def _config_option() -> inspect.Parameter:
    text = "A TOML file with settings, such as configs/cpu.toml (QWEN_OPENAI_CONFIG)"
    option = typer.Option("--config", help=text, show_default=False, metavar="FILE")
    return _parameter("config", Path | None, option)


def _setting_options() -> list[inspect.Parameter]:
    return [
        _setting_option(name, Settings.model_fields[name], group)
        for group, names in GROUPS
        for name in names
        if name != "model"
    ]


def _setting_option(name: str, field: FieldInfo, group: str) -> inspect.Parameter:
    flag = settings.flag_of(name)
    is_switch = field.annotation is bool
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if is_switch and field.default else flag,
        help=f"{field.description}{_default(field)}",
        show_default=False,
        metavar=" " if is_switch else _metavar(name, field),
        rich_help_panel=group,
    )
    return _parameter(name, bool | None if is_switch else str | None, option)


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    shown = "" if default in (None, (), {}) or default is False else default
    return f" (default {'on' if shown is True else shown})" if shown != "" else ""


def _metavar(name: str, field: FieldInfo) -> str:
    if name in _METAVARS:
        return _METAVARS[name]
    if get_origin(field.annotation) is Literal:
        return "|".join(get_args(field.annotation))
    kinds = {field.annotation, *get_args(field.annotation)}
    if int in kinds:
        return "N"
    return "SECONDS" if float in kinds else "NAMES"
