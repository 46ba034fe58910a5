"""What is shown while a model loads: a spinner with a share, or few plain lines."""

import contextlib
import io
from pathlib import Path

from rich.console import Console

from qwen_openai.cli.loading import Loading
from tests.cli.program import OnTerminal, environment


def _shown(*, terminal: bool, every: float = 10.0) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=72, color_system=None)
    with Loading("Loading m", console=console, every=every) as loading:
        for done in range(0, 301, 50):
            loading.report(done, 300)
            loading.report(done, 300)
    return out.getvalue()


def test_a_terminal_shows_the_share() -> None:
    shown = _shown(terminal=True)
    for percent in (0, 16, 33, 50, 66, 83, 100):
        assert f"Loading m, {percent}% of the weights" in shown
    assert shown.endswith("\x1b[2K")  # nothing of it stays


def test_a_pipe_gets_one_line_of_a_short_load() -> None:
    assert _shown(terminal=False) == "Loading m ...\n"


def test_a_pipe_gets_lines_of_a_long_load() -> None:
    lines = _shown(terminal=False, every=0).splitlines()
    assert lines[0] == "Loading m ..."
    shares = [f"Loading m: {percent}% of the weights" for percent in (0, 16, 33, 50, 66, 83, 100)]
    assert lines[1:-1] == shares
    assert lines[-1].startswith("Loading m: done in ")


def test_what_fails_is_not_said_to_be_done() -> None:
    out = io.StringIO()
    console = Console(file=out, width=72)
    with contextlib.suppress(ValueError), Loading("L", console=console, every=0) as loading:
        loading.report(1, 2)
        raise ValueError
    assert out.getvalue().splitlines() == ["L ...", "L: 50% of the weights"]


def test_a_pipe_that_nobody_reads_any_more_stops_nothing() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with Loading("L", console=Console(file=Closed()), every=0) as loading:
        loading.report(1, 2)


def test_serve_shows_it_on_a_terminal(shared: Path, tmp_path: Path) -> None:
    folder = shared / "golden" / "qwen1" / "checkpoint"
    arguments = ("serve", "--port", "0", "--", str(folder))
    with OnTerminal(*arguments, env=environment(tmp_path), cwd=tmp_path) as terminal:
        terminal.expect(", 0% of the weights")
        assert "Loading weights" not in terminal.expect("100% of the weights")
        terminal.expect("is ready")
        terminal.expect("curl")
        terminal.type("\x03")
        assert terminal.wait() == 0
