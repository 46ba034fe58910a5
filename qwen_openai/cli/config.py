"""`qwen-openai config`: every setting, its value, where that came from, and what it means."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypedDict

import typer
from pydantic import BaseModel, SecretStr

from qwen_openai import settings
from qwen_openai.settings import GROUPS, Loaded, Settings, flag_of, variable_of

MASK = "********"


class Row(TypedDict):
    """One setting as `--json` prints it. A secret's value is masked."""

    value: object
    origin: str
    default: object
    meaning: str
    variable: str
    flag: str


def config(
    file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Look at this config file's settings too."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", metavar=" ", help="As JSON, for programs.")
    ] = False,
    as_toml: Annotated[
        bool,
        typer.Option("--toml", metavar=" ", help="As a commented config file, to save and edit."),
    ] = False,
    as_markdown: Annotated[
        bool,
        typer.Option(
            "--markdown", metavar=" ", help="As the table of the manual, with defaults only."
        ),
    ] = False,
) -> None:
    """Show every setting: what holds, where it came from, what it means.

    Flags beat environment variables, these beat the config file, and that
    beats the defaults.

      qwen-openai config
      qwen-openai config --config configs/cpu.toml
      qwen-openai config --toml > my.toml
    """
    if as_markdown:
        typer.echo(to_markdown(), nl=False)
        return
    loaded = settings.load(config=file)
    if as_json:
        typer.echo(json.dumps(rows(loaded), ensure_ascii=False, indent=2))
    elif as_toml:
        typer.echo(to_toml(loaded), nl=False)
    else:
        typer.echo("\n".join(_lines(loaded)))


def rows(loaded: Loaded) -> dict[str, Row]:
    """Return all settings by name, in the order of GROUPS."""
    return {
        name: Row(
            value=_plain(getattr(loaded.settings, name)),
            origin=loaded.origin[name],
            default=_plain(_default(name)),
            meaning=Settings.model_fields[name].description or "",
            variable=variable_of(name),
            flag=_flag(name),
        )
        for _, names in GROUPS
        for name in names
    }


def to_toml(loaded: Loaded) -> str:
    """Return a config file that gives these settings again, but for secrets and what is unset."""
    lines = ["# Settings of qwen-openai. Environment variables and flags beat this file."]
    table = rows(loaded)
    for group, names in GROUPS:
        lines += ["", f"# {group}"]
        for name in names:
            value = table[name]["value"]
            if value is None or value == MASK:
                lines.append(f"# {name} =  # {_meaning_in_file(name, table[name])}")
            elif name == "upstreams" and isinstance(value, list) and value:
                lines.append(f"{name} = [  # {table[name]['meaning']}")
                lines += [f"    {_without_secrets(each)}" for each in value]
                lines.append("]")
            else:
                lines.append(f"{name} = {_literal(value)}  # {table[name]['meaning']}")
    return "\n".join(lines) + "\n"


def to_markdown() -> str:
    """Return the settings as Markdown tables, one a group, with the defaults."""
    lines: list[str] = []
    for group, names in GROUPS:
        lines += [f"### {group}", "", "| setting | default | meaning |", "| --- | --- | --- |"]
        for name in names:
            field = Settings.model_fields[name]
            default = _plain(_default(name))
            shown = "" if default is None else f"`{_literal(default)}`"
            meaning = (field.description or "").replace("|", "\\|")
            lines.append(f"| `{name}` | {shown} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def _meaning_in_file(name: str, row: Row) -> str:
    kept_out = f"; set {row['variable']} rather than writing it here"
    return row["meaning"] + (kept_out if name == "api_key" else "")


def _lines(loaded: Loaded) -> Iterator[str]:
    table = rows(loaded)
    for group, names in GROUPS:
        yield typer.style(group, bold=True)
        for name in names:
            row = table[name]
            value = "(not set)" if row["value"] is None else _literal(row["value"])
            changed = row["origin"] != "default"
            left = f"{name} = {value}".ljust(44)
            origin = f"from {row['origin']}" if changed else "default"
            yield f"  {typer.style(left, fg='green' if changed else None)} {origin}"
            note = f"{row['meaning']} ({row['variable']}, {row['flag']})"
            yield typer.style(f"      {note}", dim=True)
        yield ""


def _flag(name: str) -> str:
    return "MODEL" if name == "model" else flag_of(name)


def _default(name: str) -> object:
    return Settings.model_fields[name].get_default(call_default_factory=True)


def _plain(value: object) -> object:
    """Make it what JSON has. Of an upstream only what somebody has said of it is kept."""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        said = ((name, getattr(value, name)) for name in type(value).model_fields)
        return {name: _plain(each) for name, each in said if name in value.model_fields_set}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _without_secrets(upstream: object) -> str:
    """Return one upstream for a config file; a key is a comment that says where it belongs."""
    shown = dict(upstream) if isinstance(upstream, dict) else {}
    secret = shown.pop("api_key", None)
    return f"{_literal(shown)},{'  # and an api_key, or api_key_env' if secret else ''}"


def _literal(value: object) -> str:
    """A TOML value; for strings, numbers, switches and lists of them it is also JSON."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_name(each)} = {_literal(under)}" for each, under in value.items())
        return f"{{{inside}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _name(name: object) -> str:
    """A TOML key; model names have dots and slashes, which must be quoted."""
    return str(name) if re.fullmatch(r"[A-Za-z0-9_-]+", str(name)) else _literal(str(name))
