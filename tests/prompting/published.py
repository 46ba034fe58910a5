"""Chat templates as Qwen publishes them: from the wheel of trl, which carries copies for training.

Fetched once with pip, at a pinned version and hash, into the cache folder; read as a zip, never
installed.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from qwen_openai.models.layout import default_home

_REQUIREMENT = "trl==1.16.0"
_WHEEL = "trl-1.16.0-py3-none-any.whl"
_SHA256 = "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396"
_MEMBER = "trl/chat_templates/{}.jinja"
NAMES = (
    *("qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_5_think", "qwen3_5_nothink"),
    *("qwen3_6", "qwen3_8"),
)


def published_templates() -> dict[str, str]:
    """The templates by name; skips the test where they cannot be fetched, fails it under CI."""
    home = os.environ.get("QWEN_OPENAI_HOME")
    folder = Path(home if home else default_home()).expanduser() / "tests"
    wheel = folder / _WHEEL
    if not _is_whole(wheel) and (reason := _fetch(wheel)):
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(_MEMBER.format(name)).decode() for name in NAMES}


def _is_whole(wheel: Path) -> bool:
    return wheel.is_file() and hashlib.sha256(wheel.read_bytes()).hexdigest() == _SHA256


def _fetch(wheel: Path) -> str:
    """Put the wheel where it belongs; return why that failed, or nothing."""
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheel.parent) as temporary:
        requirements = Path(temporary, "requirements.txt")
        requirements.write_text(f"{_REQUIREMENT} --hash=sha256:{_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--no-input", "--retries", "1"]
        command += ["--timeout", "10", "--dest", temporary, "--requirement", str(requirements)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(temporary, _WHEEL)
        if ended.returncode != 0 or not _is_whole(fetched):
            lines = ended.stderr.strip().splitlines() or ["pip gave no reason"]
            return f"{_REQUIREMENT}, which has the published templates, cannot be had: {lines[-1]}"
        os.replace(fetched, wheel)
    return ""
