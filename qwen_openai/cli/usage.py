"""`qwen-openai usage`: what was used, by day, key and model; as a table, JSON or CSV.

Reads the database beside a server that runs, and changes nothing in it.
"""

import csv
import io
import json
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len

from qwen_openai.cli.database import with_database
from qwen_openai.cli.spans import iso, seconds_of
from qwen_openai.errors import StartupError
from qwen_openai.gateway.store import database
from qwen_openai.gateway.store import usage as store
from qwen_openai.gateway.store.reading import reading
from qwen_openai.gateway.store.usage import GROUPS, Sums, Which

_AGO = re.compile(r"\d+[a-z]")
_NUMBERS = ("requests", "prompt", "cached", "completion", "errors", "refused", "aborted")
_SECONDS = ("first token", "p50", "p95")


@dataclass(frozen=True, slots=True)
class Report:
    """Sums by ``by``, and all of them together; times are Unix seconds."""

    by: tuple[str, ...]
    since: float | None
    until: float | None
    rows: Sequence[Sums]
    total: Sums
    names: Mapping[str, str]


@with_database
def usage(  # noqa: PLR0913  # one for each flag, as typer reads them
    path: Path,
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="NAMES", help=f"What to sum by, commas between: {', '.join(GROUPS)}."
        ),
    ] = "day,key,model",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="A day (UTC), a moment, or 7d, 24h, 30m.")
    ] = "30d",
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="As --since; a day is in as a whole."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Only this key: its id or name.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Only this model.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", metavar=" ", help="As JSON, for programs.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", metavar=" ", help="As CSV, for spreadsheets.")
    ] = False,
) -> None:
    """Show what was used, by day, key and model.

    Days are UTC's. Seconds are those of requests that were answered whole;
    "first token" is a mean. A server that runs is at most a second ahead.

      qwen-openai usage
      qwen-openai usage --by key --since 2026-11-01
      qwen-openai usage --by day,model --key anna --csv
    """
    now = time.time()
    groups = _groups(by)
    begin = _time(since, "--since", now)
    end = None if until is None else _time(until, "--until", now, ends=True)
    if not path.is_file():
        raise StartupError(
            f"There is no database at {path}.",
            fix="Give the file with --database; a server makes it when it first starts.",
        )
    try:
        with reading(path) as connection:
            report = _report(connection, groups, begin, end, (key, model))
    except sqlite3.Error as error:
        raise database.unusable(path, error) from None
    if as_json:
        typer.echo(json.dumps(to_json(report), ensure_ascii=False, indent=2))
    elif as_csv:
        typer.echo(to_csv(report), nl=False)
    else:
        typer.echo("\n".join(to_lines(report)))


def to_json(report: Report) -> dict[str, object]:
    """Return the report as JSON has it: bare numbers, None where there is none."""
    return {
        "by": report.by,
        "since": iso(report.since),
        "until": iso(report.until),
        "rows": [_flat(row, report.names) for row in report.rows],
        "total": _flat(report.total, report.names),
    }


def to_csv(report: Report) -> str:
    """Return a line of names and one for each sum, without the total."""
    written = io.StringIO()
    writer = csv.DictWriter(written, list(_flat(Sums(dict.fromkeys(report.by, "")), {})))
    writer.writeheader()
    for row in report.rows:
        writer.writerow({name: _cell(value) for name, value in _flat(row, report.names).items()})
    return written.getvalue()


def to_lines(report: Report) -> list[str]:
    """Return the table, line by line."""
    if not report.rows:
        return ["Nothing was used in this time."]
    head = [*report.by, *_NUMBERS, *_SECONDS]
    body = [_texts(row, report) for row in report.rows]
    if len(body) > 1 and report.by:
        body.append(["total", *[""] * (len(report.by) - 1), *_texts(report.total, report)])
    widths = [max(cell_len(line[column]) for line in [head, *body]) for column in range(len(head))]
    return [_aligned(line, widths, len(report.by)) for line in [head, *body]]


def _report(
    connection: sqlite3.Connection,
    by: tuple[str, ...],
    since: float | None,
    until: float | None,
    only: tuple[str | None, str | None],
) -> Report:
    key, model = only
    keys = None
    if key is not None:
        keys = store.keys_called(connection, key)
        if not keys:
            raise StartupError(
                f"There is no key {key!r}.", fix="`qwen-openai keys list` shows those there are."
            )
    which = Which(since, until, keys, model)
    rows = store.sums(connection, which, by, quantiles=True)
    total = store.sums(connection, which, quantiles=True)
    names = store.names_of_keys(connection)
    return Report(by, since, until, rows, total[0] if total else Sums({}), names)


def _groups(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in GROUPS:
            raise typer.BadParameter(
                f"usage cannot be summed by {name!r}, but by {', '.join(GROUPS)}"
            )
    return names


def _time(text: str, flag: str, now: float, *, ends: bool = False) -> float:
    """Return the Unix time of a day, a moment or a span before ``now``; the end of a day that
    ``ends`` something."""
    if _AGO.fullmatch(text):
        return now - seconds_of(text)
    try:
        moment = datetime.fromisoformat(text)
        if ends and len(text) == len("2026-11-01"):
            moment += timedelta(days=1)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{flag} {text!r} is no time: write 7d, 2026-11-01 or 2026-11-01T18:00+08:00"
        ) from None


def _flat(sums: Sums, names: Mapping[str, str]) -> dict[str, str | int | float | None]:
    numbers = asdict(sums)
    flat: dict[str, str | int | float | None] = {**numbers.pop("by")}
    if "key" in flat:
        flat["key_name"] = names.get(str(flat["key"]), "")
    return {**flat, **numbers}


def _texts(sums: Sums, report: Report) -> list[str]:
    shared = [_named(name, value, report.names) for name, value in sums.by.items()]
    counts = (
        sums.requests,
        sums.prompt_tokens,
        sums.cached_tokens,
        sums.completion_tokens,
        sums.errors,
        sums.refused,
        sums.aborted,
    )
    seconds = (sums.first_token, sums.median, sums.p95)
    return [
        *shared,
        *(f"{count:,}" for count in counts),
        *("-" if each is None else f"{each:.3f} s" for each in seconds),
    ]


def _named(group: str, value: str, names: Mapping[str, str]) -> str:
    if not value:
        return "-"
    shown = names.get(value, value) if group == "key" else value
    return "".join(letter if letter.isprintable() else "?" for letter in shown[:60])


def _aligned(line: Sequence[str], widths: Sequence[int], left: int) -> str:
    # Names may be Chinese, whose letters are two columns wide.
    pads = [" " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)]
    cells = [
        text + pad if column < left else pad + text
        for column, (text, pad) in enumerate(zip(line, pads, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _cell(value: str | int | float | None) -> str | int | float | None:
    """A text that a spreadsheet would run as a formula is led by an apostrophe."""
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if is_formula else value
