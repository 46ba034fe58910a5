"""The command line. `main` is the console script: it runs a command and turns a failure into two
lines on stderr, what happened and what to do. The commands know the rest of the house, nobody knows
them; what is slow to import is imported inside the command that needs it.
"""

import io
import os
import sys

from qwen_openai.errors import StartupError

INTERRUPTED = 130


def main() -> None:
    """Run the command in sys.argv and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    _never_fail_to_write()
    try:
        from qwen_openai.cli.commands import build

        build(arguments)(args=arguments, prog_name="qwen-openai")
    except StartupError as error:
        if debug:
            raise
        _explain(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        _flush()


def _explain(error: StartupError) -> None:
    from typer import secho

    secho("Error: ", err=True, fg="red", bold=True, nl=False)
    secho(error.message, err=True)
    secho("Fix:   ", err=True, fg="green", bold=True, nl=False)
    secho(error.fix, err=True)


def _never_fail_to_write() -> None:
    """A terminal that knows no Chinese gets escapes, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Meet a reader that left (`qwen-openai config | head`) here, not in a traceback at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
