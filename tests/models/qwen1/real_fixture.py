"""The embedded model as a Qwen-1 directory and as a plain Qwen2 one, made once and kept.

They lie below the cache folder, keyed by the weights and by the code that wrote them, so that all
test processes share them. Some 2.3 GB.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from qwen_openai.models.catalogue import CATALOGUE, find
from qwen_openai.models.layout import default_home
from tests.models.qwen1 import as_qwen1
from tests.real import MODEL, real_files


@lru_cache
def real_qwen1() -> Path:
    """The Qwen-1 directory, as published: raw names. Skips like `tests.real.real_files`."""
    return _made("raw", as_qwen1.write_qwen1)


@lru_cache
def real_native() -> Path:
    """The same float16 weights in the Qwen2 layout, for plain transformers. Skips likewise."""
    return _made("native", as_qwen1.write_native)


def _made(kind: str, write: Callable[[Path, Path], None]) -> Path:
    weights = real_files().weights
    entry = find(MODEL, CATALOGUE)
    assert entry is not None
    code = hashlib.sha256(Path(as_qwen1.__file__).read_bytes()).hexdigest()
    root = Path(os.environ.get("QWEN_OPENAI_HOME") or default_home()).expanduser() / "tests"
    folder = root / f"as-qwen1-{entry.sha256[:12]}-{code[:12]}" / kind
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{kind}.lock")):
        if not folder.exists():
            for older in root.glob(f"as-qwen1-*/{kind}"):
                shutil.rmtree(older)
            part = folder.with_name(f"{kind}.part")
            shutil.rmtree(part, ignore_errors=True)
            write(weights, part)
            part.rename(folder)
    return folder
