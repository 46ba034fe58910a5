"""Members that an upstream sent and that our shapes have no room for: kept until they can go out.

Pure. What came in pieces is put together as clients do it with deltas: texts and lists one behind
the other, whatever else replaced.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from qwen_openai.core import Extra

Members = dict[str, object]


@dataclass(slots=True)
class Kept:
    """What has come and not gone out yet. See core.Extra for the members."""

    body: Members
    choice: Members
    delta: Members
    usage: Members

    def add(self, extra: Extra) -> None:
        """Take more of it."""
        self.body.update(extra.body)
        self.choice.update(extra.choice)
        for name, value in extra.delta.items():
            self.delta[name] = _together(self.delta.get(name), value)
        self.usage.update(extra.usage)


def nothing() -> Kept:
    """Return a place for members."""
    return Kept({}, {}, {}, {})


class Waiting:
    """What waits, choice by choice, for a chunk of the same choice to go out with."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[int, Kept] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, extra: Extra) -> None:
        """Keep an event's members until their choice has a chunk."""
        self._of.setdefault(extra.index, nothing()).add(extra)

    def join(self, index: int, chunk: Members) -> Members:
        """Return a choice's chunk with what waited for it."""
        kept = self._of.pop(index, None)
        if kept is None:
            return chunk
        choices = chunk["choices"]
        assert isinstance(choices, list)  # noqa: S101  # made here; tells the type checker
        choice = {**choices[0], **kept.choice}
        if "delta" in choice:
            choice["delta"] = {**choice["delta"], **kept.delta}
        return {**chunk, "choices": [choice], **kept.body}


def with_members(usage: Members, extra: Mapping[str, object]) -> Members:
    """Return a usage with further members, also in its objects."""
    for name, value in extra.items():
        own = usage.get(name)
        if isinstance(own, dict) and isinstance(value, dict):
            usage[name] = {**own, **value}
        else:
            usage[name] = value
    return usage


def _together(known: object, more: object) -> object:
    if isinstance(known, str) and isinstance(more, str):
        return known + more
    if isinstance(known, list) and isinstance(more, list):
        return known + more
    return more
