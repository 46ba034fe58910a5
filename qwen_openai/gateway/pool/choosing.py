"""Which of several replicas gets a job. Pure: it is given numbers and a source of chance."""

from collections.abc import Sequence
from random import Random
from typing import Protocol, TypeVar


class Choosable(Protocol):
    """What the choice looks at: jobs under way, and the share of work beside others."""

    @property
    def in_flight(self) -> int: ...
    @property
    def weight(self) -> float: ...


C = TypeVar("C", bound=Choosable)


def load(one: Choosable) -> float:
    """Return how busy it would be with one job more, by its weight."""
    return (one.in_flight + 1) / one.weight


def excess(one: Choosable, least: float) -> float:
    """Return how many jobs more than its share it would have; ``least`` is the lowest load."""
    return one.in_flight + 1 - least * one.weight


def choose(free: Sequence[C], preferred: C | None, gap: float, random: Random) -> C:
    """Return the preferred one unless it has more than ``gap`` jobs above its share, else one of
    the least loaded. ``free`` has at least one; a preferred one that is not in it is not taken."""
    if len(free) == 1:
        return free[0]
    loads = [load(one) for one in free]
    least = min(loads)
    if preferred is not None and preferred in free and excess(preferred, least) <= gap:
        return preferred
    return random.choice([one for one, its in zip(free, loads, strict=True) if its == least])
