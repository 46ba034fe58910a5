"""The program in the test's own process: the same way in, from sys.argv to the exit code, without
the second that a process takes to start. What is about processes is in `program`."""

import io
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest.mock import patch

from qwen_openai.cli import main


def run(*arguments: str, env: Mapping[str, str]) -> CompletedProcess[str]:
    """Run `qwen-openai` to its end, with this environment and no other."""
    out, said = _stream(), _stream()
    code = 0
    with (
        patch.dict(os.environ, env, clear=True),
        patch.object(sys, "argv", ["qwen-openai", *arguments]),
        redirect_stdout(out),
        redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return CompletedProcess(arguments, code, _text(out), _text(said))


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()
