"""Children are watched while they work, and never outlive the pull."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen_openai.models import child
from qwen_openai.models.failure import SourceFailed

_WORK = """\
import sys, time
from pathlib import Path
file = Path(sys.argv[1]) / "growing"
for _ in range(int(sys.argv[2])):
    with file.open("ab") as out:
        out.write(bytes(1000))
    time.sleep(0.05)
sys.stderr.write("first\\nERROR: the reason\\nlast\\n")
sys.exit(int(sys.argv[3]))
"""

_HANG = """\
import os, sys, time
from pathlib import Path
Path(sys.argv[1], "pid.new").write_text(str(os.getpid()))
Path(sys.argv[1], "pid.new").rename(Path(sys.argv[1], "pid"))
time.sleep(600)
"""

_PARENT = """\
import sys
from pathlib import Path
from qwen_openai.models import child
child.run(child.Task("work", [sys.argv[1]], Path(sys.argv[1]), 600), lambda _: None)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "watched").mkdir()
    return tmp_path / "watched"


def _task(
    tmp_path: Path, script: str, folder: Path, *arguments: str, stall: float = 30
) -> child.Task:
    (tmp_path / "work.py").write_text(script)
    return child.Task(
        "work", [str(folder), *arguments], folder, stall, {"PYTHONPATH": str(tmp_path)}
    )


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False
    return state == "Z"


def _eventually(condition: "os.PathLike[str] | int") -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if _gone(condition) if isinstance(condition, int) else Path(condition).exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited 20 s for {condition}")


def test_growth_is_told(tmp_path: Path, folder: Path) -> None:
    told: list[int] = []
    ended = child.run(_task(tmp_path, _WORK, folder, "20", "0"), told.append)
    assert ended.code == 0
    assert told == sorted(told)
    assert len(set(told)) > 2


def test_what_it_printed_says_why_it_failed(tmp_path: Path, folder: Path) -> None:
    ended = child.run(_task(tmp_path, _WORK, folder, "0", "3"), lambda _: None)
    assert ended.code == 3
    assert ended.last_line("ERROR:") == "the reason"
    assert ended.last_line() == "last"
    assert child.Ended(1, "").last_line() == "no reason given"


def test_the_gateways_settings_stay_here(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_OPENAI_API_KEY", "secret")
    monkeypatch.setenv("qwen_openai_config", "file")  # settings are read in either case
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    task = _task(tmp_path, "import os\nprint(sorted(os.environ))\n", folder)
    shown = child.run(task, lambda _: None).output
    assert "PIP_NO_INDEX" in shown
    assert "qwen_openai" not in shown.lower()


def test_a_child_that_hangs_is_ended(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SourceFailed, match="nothing arrived"):
        child.run(_task(tmp_path, _HANG, folder, stall=0.5), lambda _: None)
    _eventually(int((folder / "pid").read_text()))


def test_an_interrupt_ends_the_child(tmp_path: Path, folder: Path) -> None:
    def interrupt(_: int) -> None:
        if (folder / "pid").exists():
            raise KeyboardInterrupt

    (folder / "old").write_bytes(b"x")
    with pytest.raises(KeyboardInterrupt):
        child.run(_task(tmp_path, _HANG, folder), interrupt)
    _eventually(int((folder / "pid").read_text()))


def test_sigkill_of_the_parent_ends_the_child(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "work.py").write_text(_HANG)
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(folder)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as parent:
        _eventually(folder / "pid")
        parent.kill()
    _eventually(int((folder / "pid").read_text()))
