"""`qwen-openai convert`: a Qwen-1 directory into one that today's programs load as a Qwen2.

Draws the progress, and says at the end what it took and what to do next. The work is done by
`models.qwen1`; StartupError goes through to the command line as a whole.
"""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from qwen_openai import settings
from qwen_openai.cli.pull import home_of, megabytes, pull_progress
from qwen_openai.errors import StartupError
from qwen_openai.models.catalogue import CATALOGUE
from qwen_openai.models.checkpoint import Checkpoint
from qwen_openai.models.qwen1 import Conversion
from qwen_openai.models.qwen1 import convert as convert_directory
from qwen_openai.models.reference import parse
from qwen_openai.models.store import Store


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A Qwen-1 directory (config.json, qwen.tiktoken and weights), or the ModelScope id"
            " of one that was pulled.",
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="A new or empty directory for the result.")
    ],
    home: Annotated[
        Path | None, typer.Option(help="Where pulled models are; else QWEN_OPENAI_HOME.")
    ] = None,
) -> None:
    """Convert a Qwen-1 model to the Qwen2 layout, for vLLM and others.

    [bold]What it does[/bold]

    Tensors are renamed and cut, bit for bit; nothing is computed, and no code of
    the model is run. The tokenizer is made of qwen.tiktoken, with a ChatML
    template. The result loads without trust_remote_code in transformers, vLLM,
    SGLang and llama.cpp's converter, for prompts and answers up to the length
    that the model was trained for (8192 tokens for Qwen-7B-Chat).

    `qwen-openai serve` needs no conversion: it takes Qwen-1 as published.

    [bold]Examples[/bold]

      qwen-openai pull Qwen/Qwen-7B-Chat
      qwen-openai convert Qwen/Qwen-7B-Chat ./qwen-7b-chat
      vllm serve ./qwen-7b-chat
    """
    folder = _folder_of(source, home)
    with _tidy_when_terminated(), pull_progress() as progress:
        done = convert_directory(folder, target, progress)
    _report(target, done)


@contextmanager
def _tidy_when_terminated() -> Iterator[None]:
    """Let a SIGTERM end the program as Ctrl-C does, what was begun deleted. Exit code 143."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _folder_of(source: str, home: Path | None) -> Path:
    """Return the directory that SRC means. Raises StartupError when it is none on this machine."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    parse(source, CATALOGUE)  # says why, when it cannot be the name of anything
    found = Store(home_of(settings.load({"home": home}).settings)).locate(source)
    if found is None:
        raise StartupError(
            f"{source} is no directory, and no model that was pulled.",
            fix=f"Check the path, or run `qwen-openai pull {shlex.quote(source)}` first.",
        )
    return found.folder if isinstance(found, Checkpoint) else found.weights


def _report(target: Path, done: Conversion) -> None:
    files = "1 file" if done.shards == 1 else f"{done.shards} files"
    typer.echo(f"{target} is written: {megabytes(done.weight_bytes)} of weights in {files}.")
    typer.echo(
        f"It took {done.seconds:.1f} s and held {megabytes(done.peak_bytes)} of weights at a time."
    )
    typer.echo(
        f"Peak memory of the whole process, mapped files included: {megabytes(_peak_memory())}."
    )
    typer.echo(f"Serve it:  qwen-openai serve {shlex.quote(str(target))}")
    typer.echo(f"or:        vllm serve {shlex.quote(str(target))}")


def _peak_memory() -> int:
    """Return the most bytes of memory that this process had at once."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes but on macOS
