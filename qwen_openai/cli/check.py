"""`qwen-openai check`: tries the facts that clients rely on against any OpenAI-compatible server.

What is tried is `conformance`'s; here it is chosen, shown and turned into an exit code.
"""

import json
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen_openai.cli.client import Client, GatewayUnreachable
from qwen_openai.conformance.catalogue import FACTS
from qwen_openai.conformance.fact import Fact, Outcome, Verdict, try_all
from qwen_openai.conformance.target import Target
from qwen_openai.errors import StartupError

_STYLES: dict[Verdict, str] = {"pass": "green", "fail": "bold red", "skip": "yellow"}


def check(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server, as an SDK's base_url.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model to ask; by default the server's first."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Its API key; by default QWEN_OPENAI_API_KEY."),
    ] = None,
    only: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Only the facts whose name begins so, like `stream`."),
    ] = "",
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long the server may be silent.")
    ] = 120.0,
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar=" ", help="Print the results as JSON, not as a table."),
    ] = False,
) -> None:
    """Try what clients rely on against any OpenAI-compatible server.

    Asks a few dozen short questions, plain and streamed, through plain HTTP, the
    official SDK and (if it is installed) LangChain. Exit code: 0 all facts hold,
    1 some do not, or nothing answers, 2 wrong usage. Facts that cannot be tried are skipped
    with the reason.

      qwen-openai check http://127.0.0.1:6006/v1
      qwen-openai check http://127.0.0.1:8000/v1 --only stream --json
    """
    facts = [fact for fact in FACTS if fact.name.startswith(only)]
    if not facts:
        areas = sorted({fact.name.partition(".")[0] for fact in FACTS})
        raise typer.BadParameter(
            f"no fact's name begins with {only!r}; areas are {', '.join(areas)}.",
            param_hint="--only",
        )
    used = key if key is not None else os.environ.get("QWEN_OPENAI_API_KEY") or None
    target = _target(url, model, used, timeout)
    outcomes = _run(facts, target, show=not as_json)
    if as_json:
        _print_json(target, outcomes)
    else:
        _print_table(target, outcomes)
    if any(outcome.verdict == "fail" for outcome in outcomes):
        raise typer.Exit(1)


def _target(url: str, model: str | None, key: str | None, timeout: float) -> Target:
    client = Client(url, key)
    try:
        served = client.model_names()
    except GatewayUnreachable:
        raise StartupError(
            f"No server answers at {client.base_url}.",
            fix="Start it, or give the base_url that its clients use, mostly one that ends in /v1.",
        ) from None
    finally:
        client.close()
    if model is None:
        if not served:
            raise StartupError(
                f"The server at {client.base_url} lists no models.", fix="Name one with --model."
            )
        model = served[0]
    return Target(client.base_url, model, key, timeout=timeout)


def _run(facts: list[Fact], target: Target, *, show: bool) -> list[Outcome]:
    """Try them; on a terminal a line tells how far it is."""
    errors = Console(stderr=True)
    if not show or not errors.is_terminal:
        return list(try_all(facts, target))
    outcomes = []
    with errors.status("") as status:
        for outcome in try_all(facts, target):
            outcomes.append(outcome)
            status.update(f"{len(outcomes)} of {len(facts)} tried, last {outcome.name}")
    return outcomes


def _print_table(target: Target, outcomes: list[Outcome]) -> None:
    table = Table(title=f"{target.model} at {target.base_url}", title_justify="left")
    for heading in ("fact", "result", "what must hold, or what was seen"):
        table.add_column(heading, overflow="fold")
    for outcome in outcomes:
        style = _STYLES[outcome.verdict]
        told = escape(outcome.detail or outcome.says)
        table.add_row(outcome.name, f"[{style}]{outcome.verdict}[/{style}]", told)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    typer.echo(_summary(outcomes))


def _count(outcomes: list[Outcome]) -> dict[str, int]:
    verdicts = [outcome.verdict for outcome in outcomes]
    return {verdict: verdicts.count(verdict) for verdict in _STYLES}


def _summary(outcomes: list[Outcome]) -> str:
    counts = _count(outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    return (
        f"{counts['pass']} hold, {counts['fail']} do not, {counts['skip']} could not be tried"
        f" ({seconds:.0f} s)."
    )


def _print_json(target: Target, outcomes: list[Outcome]) -> None:
    facts = [
        {
            "name": outcome.name,
            "says": outcome.says,
            "result": outcome.verdict,
            "detail": outcome.detail,
            "seconds": round(outcome.seconds, 3),
        }
        for outcome in outcomes
    ]
    found = {
        "url": target.base_url, "model": target.model, **_count(outcomes), "facts": facts,
    }  # fmt: skip
    typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
