"""JSON files that others wrote: read with every size and type checked, or refused in one sentence.

Knows nothing of models; `checkpoint`, `shards` and `qwen1` read their files through it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import orjson

from qwen_openai.errors import StartupError

# No configuration, index or template is longer; an index of 72B's weights is some 100 kB.
_MOST_BYTES = 64 * 2**20
_MOST = 2**40
AGAIN = "Fetch the model again, from where it was published."


@dataclass(frozen=True, slots=True)
class Document:
    """An object out of a JSON file; ``path`` is named in each refusal."""

    path: Path
    values: Mapping[str, object]

    def refuse(self, reason: str, fix: str = AGAIN) -> NoReturn:
        """Raise StartupError: ``reason`` follows "PATH cannot be used: "."""
        raise StartupError(f"{self.path} cannot be used: {reason}.", fix=fix)

    def whole(self, key: str, default: int | None = None, *, most: int = _MOST) -> int:
        """Return a number from 1 to ``most``; absent or null, the default, where there is one."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            self.refuse(f"its {key} is {_shown(value)}, not a whole number from 1 to {most}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """Return a positive finite number; absent or null, the default, where there is one."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e12:
            self.refuse(f"its {key} is {_shown(value)}, not a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false; absent or null, the default."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(f"its {key} is {_shown(value)}, not true or false")
        return value

    def text(self, key: str) -> str | None:
        """Return a string, or None when there is none; numbers and the like count as none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def within(self, key: str) -> "Document | None":
        """Return an object inside this one; None when there is none, or something else."""
        value = self.values.get(key)
        return Document(self.path, value) if isinstance(value, dict) else None


def read_document(path: Path, fix: str = AGAIN) -> Document:
    """Return the object in a JSON file. Raises StartupError when there is no such file, when it
    cannot be read, and when it holds something else."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _MOST_BYTES else None
    except OSError as exc:
        raise StartupError(
            f"{path} cannot be read: {exc.strerror or exc}.",
            fix=fix,
        ) from exc
    document = Document(path, {})
    if content is None:
        document.refuse(f"it has {size} bytes, more than any file of its kind", fix)
    try:
        values = orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        document.refuse(f"it is not JSON ({exc})", fix)
    if not isinstance(values, dict):
        document.refuse("it holds no JSON object", fix)
    return Document(path, values)


def _shown(value: object) -> str:
    return "absent" if value is None else repr(value)[:60]
