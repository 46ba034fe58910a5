"""`qwen-openai keys`: make, list, show, revoke and rotate what clients send to come in.

The secret goes to standard output, alone, so that it can be captured; what is said about it goes to
standard error. A running server follows within a second.
"""

import inspect
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qwen_openai.cli.database import with_database
from qwen_openai.cli.spans import iso, moment_of, seconds_of, shown
from qwen_openai.errors import StartupError
from qwen_openai.gateway.keys import PREFIX, Key, KeyLimits
from qwen_openai.gateway.store import keys as store
from qwen_openai.gateway.store.database import exposed, opened

# Name in KeyLimits, what a number of it is called in tables, and the help of its option.
_LIMITS = (
    ("requests_per_minute", "requests/min", "Requests that it may send a minute"),
    ("tokens_per_minute", "tokens/min", "Tokens a minute, of prompts and answers"),
    ("parallel_requests", "at once", "Requests that may run at the same time"),
    ("tokens_per_day", "tokens/day", "Tokens a day; a day is UTC's"),
    ("tokens_per_month", "tokens/month", "Tokens a calendar month"),
)

AsJson = Annotated[bool, typer.Option("--json", metavar=" ", help="As JSON, for programs.")]
Which = Annotated[str, typer.Argument(metavar="KEY", help="Its id or its name")]


def keys() -> typer.Typer:
    """Make the keys that clients send, list, change and revoke them.

    A key is shown once, when it is made; the database holds its digest. A
    running server takes a new one, and drops a revoked one, within a second.
    As soon as there is one, the server asks every client for a key.

      qwen-openai keys create anna
      qwen-openai keys list
      qwen-openai keys revoke anna
    """
    group = typer.Typer(no_args_is_help=True)
    for command in (create, list_keys, show, revoke, rotate):
        name = "list" if command is list_keys else command.__name__
        group.command(name=name)(with_database(command))
    return group


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each limit; it takes a KeyLimits by the name ``limits``."""
    own = inspect.signature(command, eval_str=True).parameters

    def run(path: Path, **values: object) -> None:
        limits = KeyLimits(**{name: _number(values.pop(name)) for name, *_ in _LIMITS})
        command(path, limits=limits, **values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    options = [_limit_option(name, text) for name, _, text in _LIMITS]
    others = [parameter for name, parameter in own.items() if name not in ("path", "limits")]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what typer reads
        [
            own["path"].replace(kind=inspect.Parameter.POSITIONAL_ONLY),
            *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in [*others, *options]),
        ]
    )
    return run


def _limit_option(name: str, text: str) -> inspect.Parameter:
    option = typer.Option(
        "--" + name.replace("_", "-"),
        min=1,
        metavar="N",
        show_default=False,
        help=text,
        rich_help_panel="Limits, none where left out",
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[int | None, option],
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


@_with_limits
def create(
    path: Path,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, or what for")],
    limits: KeyLimits,
    models: Annotated[
        str,
        typer.Option(
            metavar="NAMES", show_default=False, help="Models that it may use, such as qwen,coder"
        ),
    ] = "",
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            show_default=False,
            help="When it stops: 12h, 30d, or a day, at whose beginning it does: 2031-01-31",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once.

    The key alone goes to standard output. It may use every model, at any rate,
    for ever, unless options say otherwise.

      qwen-openai keys create anna
      qwen-openai keys create app --models qwen,coder --expires 90d
      qwen-openai keys create guest --parallel-requests 2 --tokens-per-day 50000
      OPENAI_API_KEY=$(qwen-openai keys create ci --expires 12h)
    """
    now = time.time()
    until = None if expires is None else moment_of(expires, now)
    names = [each.strip() for each in models.split(",") if each.strip()]
    with opened(path) as connection:
        secret, key = store.insert(
            connection, name, models=names, limits=limits, expires=until, now=now
        )
    _give(secret, key, as_json)
    ends = "without an end" if until is None else f"until {shown(until)}"
    _say(f"Key {key.name!r} ({key.id}) for {_models(key)}, {_limits(key)}, {ends}.")
    _tell_of(path)


def list_keys(path: Path, as_json: AsJson = False) -> None:
    """List all keys, those that were revoked too.

    It shows how each begins, never the rest, which is kept nowhere: give a key
    that is lost a new secret with `rotate`.

      qwen-openai keys list
      qwen-openai keys list --json
    """
    now = time.time()
    found = _read(path)
    if as_json:
        _print_json([_plain(key, now) for key in found])
    elif not found:
        _say(f"There are no keys in {path}. Make one: `qwen-openai keys create NAME`.")
    else:
        header = ("NAME", "ID", "KEY", "STATE", "EXPIRES", "MODELS", "LIMITS")
        _print_table([header, *(_row(key, now) for key in found)])
    _warn(path)


def show(path: Path, which: Which, as_json: AsJson = False) -> None:
    """Show one key, by its id or its name: what it may do, and until when.

    Where a rotation left an earlier secret working for a while, it says which
    one, and until when.

      qwen-openai keys show anna
      qwen-openai keys show key_0123456789abcdef --json
    """
    now = time.time()
    key = _wanted(path, which)
    with opened(path) as connection:
        old = store.retired(connection, key.id, now=now)
    if as_json:
        earlier = [{"shown": text, "until": iso(until)} for text, until in old]
        _print_json({**_plain(key, now), "earlier": earlier})
        return
    lines = [
        ("name", key.name),
        ("id", key.id),
        ("key", key.shown),
        ("state", _state(key, now)),
        ("made", shown(key.created)),
        ("expires", "never" if key.expires is None else shown(key.expires)),
        ("models", _models(key)),
        ("limits", _limits(key)),
        *(("before", f"{text}, which works until {shown(until)}") for text, until in old),
    ]
    if key.revoked is not None:
        lines.append(("revoked", shown(key.revoked)))
    for label, text in lines:
        typer.echo(f"{label:<8} {text}")


def revoke(path: Path, which: Which) -> None:
    """Have a key open nothing any more, for good.

    Answers that have begun are finished. The key stays in the list, and its usage
    in the reports; its name is free for another.

      qwen-openai keys revoke anna
      qwen-openai keys revoke key_0123456789abcdef
    """
    key = _wanted(path, which)
    with opened(path) as connection:
        done = store.revoke(connection, key.id, now=time.time())
    if done:
        _say(f"Key {key.name!r} ({key.id}) is revoked; a running server stops within a second.")
    else:
        _say(f"Key {key.name!r} ({key.id}) had been revoked before.")


def rotate(
    path: Path,
    which: Which,
    grace: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN",
            show_default=False,
            help="How long the secret before still works, such as 10m or 7d",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret and print that, this once.

    Name, id, models, limits and what has been used of them stay. The secret
    before stops at once, or after the grace.

      qwen-openai keys rotate anna
      qwen-openai keys rotate anna --grace 10m
    """
    span = 0.0 if grace is None else seconds_of(grace)
    key = _wanted(path, which)
    now = time.time()
    with opened(path) as connection:
        secret, key = store.rotate(connection, key.id, now=now, grace=span)
    _give(secret, key, as_json)
    before = f"until {shown(now + span)}" if span else "no more"
    _say(f"Key {key.name!r} ({key.id}) has a new secret; the one before works {before}.")
    _tell_of(path)


def _read(path: Path) -> list[Key]:
    if not _is_there(path):
        return []
    with opened(path) as connection:
        return store.list_keys(connection)


def _wanted(path: Path, which: str) -> Key:
    if which.startswith(PREFIX):
        raise StartupError(
            "That is a key itself, which commands are not told: it would stay in the history.",
            fix="Give its id or name; `qwen-openai keys list` shows how each key begins.",
        )
    if _is_there(path):
        with opened(path) as connection:
            key = store.find(connection, which)
        if key is not None:
            return key
    raise StartupError(
        f"No key has the id or name {which[:80]!r} in {path}.",
        fix="`qwen-openai keys list` shows those that there are; --database names another file.",
    )


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # unlike Path's it never fails


def _give(secret: str, key: Key, as_json: bool) -> None:
    if as_json:
        _print_json({**_plain(key, time.time()), "key": secret})
    else:
        typer.echo(secret)


def _tell_of(path: Path) -> None:
    _say(
        "It is shown this once. Clients send it as 'Authorization: Bearer KEY', which SDKs do with "
        "OPENAI_API_KEY."
    )
    _say(f"Its digest is in {path}; a running server that uses this file knows within a second.")
    _warn(path)


def _warn(path: Path) -> None:
    sentence = exposed(path)
    if sentence:
        typer.secho("Warning: ", err=True, fg="yellow", bold=True, nl=False)
        _say(sentence)


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _plain(key: Key, now: float) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "shown": key.shown,
        "state": _state(key, now),
        "models": list(key.models),
        "limits": asdict(key.limits),
        "created": iso(key.created),
        "expires": iso(key.expires),
        "revoked": iso(key.revoked),
    }


def _state(key: Key, now: float) -> str:
    if key.revoked is not None:
        return "revoked"
    return "good" if key.is_good(now) else "expired"


def _models(key: Key) -> str:
    return ", ".join(key.models) or "all models"


def _limits(key: Key) -> str:
    most = asdict(key.limits)
    told = [f"{most[name]:,} {unit}" for name, unit, _ in _LIMITS if most[name] is not None]
    return ", ".join(told) or "no limits"


def _row(key: Key, now: float) -> tuple[str, ...]:
    expires = "never" if key.expires is None else shown(key.expires)
    return (
        key.name,
        key.id,
        key.shown,
        _state(key, now),
        expires,
        _models(key),
        _limits(key),
    )


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    from rich.cells import cell_len  # Chinese characters are two columns wide

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        typer.echo("  ".join(cells).rstrip())
