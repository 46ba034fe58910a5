"""A fact about the wire, what trying it on a server came to, and the run over many of them.

Knows nothing of any single fact. A fact is tried by a function that returns when it holds and
raises Failed or NotApplicable otherwise; whatever else it raises is a failure of the server too,
since a client would have met it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from qwen_openai.conformance.target import Target

Verdict = Literal["pass", "fail", "skip"]

_LONGEST_DETAIL = 300


class Failed(Exception):
    """The server does otherwise; the text says what it did."""


class NotApplicable(Exception):
    """The fact could not be tried on this server; the text says why."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that clients rely on. ``name`` is `area.what`; ``says`` one sentence."""

    name: str
    says: str
    holds: "Callable[[Target], None]"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one fact went; ``detail`` is empty where it held. ``seconds`` is wall time."""

    name: str
    says: str
    verdict: Verdict
    detail: str
    seconds: float


def expect(condition: object, detail: str) -> None:
    """Raise Failed with ``detail`` unless the condition is true."""
    if not condition:
        raise Failed(detail)


def try_all(facts: Iterable[Fact], target: "Target") -> Iterator[Outcome]:
    """Try facts one after another; an outcome as each is known."""
    for fact in facts:
        began = time.monotonic()
        verdict, detail = _try(fact, target)
        short = detail if len(detail) <= _LONGEST_DETAIL else detail[:_LONGEST_DETAIL] + "…"
        yield Outcome(fact.name, fact.says, verdict, short, time.monotonic() - began)


def _try(fact: Fact, target: "Target") -> tuple[Verdict, str]:
    try:
        fact.holds(target)
    except Failed as failure:
        return "fail", str(failure)
    except NotApplicable as reason:
        return "skip", str(reason)
    except Exception as error:  # noqa: BLE001  # a client breaks on this server: that is the finding
        return "fail", f"{type(error).__name__}: {error}"
    return "pass", ""
