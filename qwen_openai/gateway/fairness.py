"""Whose turn it is: a queue that is fair between owners by tokens, and oldest first for each.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): the work of each owner is laid on a
line of tokens, what begins first on it goes first, and the present on that line is where the work
that was last let in began. So who asks for little waits for one turn, however much others ask for.
Knows no slots, no time, no futures; it is `admission`'s.
"""

import heapq
from collections import OrderedDict
from itertools import islice
from typing import Generic, TypeVar

# Entries and owners without a meaning left are swept out when there are so many more than others.
_SLACK = 64


class Turn:
    """A place in the queue: whose, how much work, and a number that grows with every arrival."""

    __slots__ = ("number", "owner", "tokens")

    def __init__(self, number: int, owner: str, tokens: float) -> None:
        self.number = number
        self.owner = owner
        self.tokens = max(tokens, 1.0)


_TurnT = TypeVar("_TurnT", bound=Turn)
_Entry = tuple[float, int, str]


class _Owner(Generic[_TurnT]):
    """``reached`` is where on the line of tokens the owner's work that was let in ends; ``queued``
    are the tokens that wait; ``entry`` is its one valid entry in the heap."""

    __slots__ = ("entry", "queued", "reached", "waiting")

    def __init__(self) -> None:
        self.reached = 0.0
        self.queued = 0.0
        self.waiting: OrderedDict[int, _TurnT] = OrderedDict()
        self.entry: _Entry | None = None


class FairQueue(Generic[_TurnT]):
    """Turns in their order. All methods are O(log n), n being the owners who wait."""

    def __init__(self) -> None:
        self._now = 0.0
        self._owners: dict[str, _Owner[_TurnT]] = {}
        self._heap: list[_Entry] = []
        self._length = 0
        # Who has so many waiting, in the order in which they came to have them.
        self._crowds: dict[int, dict[str, None]] = {}
        self._longest = 0
        self._waiting_owners = 0
        self._sweep_at = _SLACK

    def __len__(self) -> int:
        return self._length

    def add(self, turn: _TurnT) -> None:
        """Put a turn behind the others of its owner."""
        owner = self._owner(turn.owner)
        owner.waiting[turn.number] = turn
        owner.queued += turn.tokens
        self._length += 1
        self._count(turn.owner, len(owner.waiting) - 1, len(owner.waiting))
        if owner.entry is None:
            self._enlist(turn.owner, owner)

    def pop(self) -> _TurnT:
        """Take the turn that is next, and lay its work on the line. IndexError if none is."""
        while True:
            entry = heapq.heappop(self._heap)
            owner = self._owners.get(entry[2])
            if owner is not None and owner.entry is entry:
                break
        turn = next(iter(owner.waiting.values()))
        self._now = max(self._now, entry[0])
        owner.reached = entry[0] + turn.tokens
        self._take_out(turn, owner)
        if owner.waiting:
            self._enlist(turn.owner, owner)
        return turn

    def remove(self, turn: _TurnT) -> bool:
        """Take a turn out that will not come; return whether it was waiting."""
        owner = self._owners.get(turn.owner)
        if owner is None or turn.number not in owner.waiting:
            return False
        self._take_out(turn, owner)
        return True

    def begin(self, turn: _TurnT) -> None:
        """Lay work on the line that did not have to wait."""
        owner = self._owner(turn.owner)
        self._now = max(self._now, owner.reached)
        owner.reached = self._now + turn.tokens

    def correct(self, turn: _TurnT, used: float) -> None:
        """Say what work that was let in has really taken."""
        owner = self._owners.get(turn.owner)
        if owner is None or used == turn.tokens:
            return
        owner.reached += used - turn.tokens
        if owner.waiting:
            self._enlist(turn.owner, owner)

    def forget(self) -> None:
        """Start anew: nothing waits and nothing runs, so nobody is ahead of anybody."""
        self._now = 0.0
        self._owners.clear()
        self._heap.clear()

    def ahead_of(self, owner: str) -> int:
        """How many turns, about, come before a new one of this owner."""
        own = self._owners.get(owner)
        mine = len(own.waiting) if own is not None else 0
        others = self._waiting_owners - (1 if mine else 0)
        return min(self._length, mine + others * (mine + 1))

    def displaced_by(self, owner: str, count: int, need: int) -> list[_TurnT]:
        """The ``need`` turns that must go if ``count`` new ones of this owner are to come in: the
        newest of who has most waiting. None where the new ones have no better right to a place.

        Better is a right where fewer wait even then; or, so that a short queue does not shut
        anybody out, where one fewer waits and its turn would come sooner. So no two owners push
        each other out by turns.
        """
        own = self._owners.get(owner)
        mine = len(own.waiting) if own is not None else 0
        if mine >= self._longest:
            return []
        crowd = self._owners[next(reversed(self._crowds[self._longest]))]
        if mine + count <= self._longest - need:
            return list(islice(reversed(crowd.waiting.values()), need))
        if count > 1:
            return []
        newest = next(reversed(crowd.waiting.values()))
        begins = max(self._now, own.reached) + own.queued if own is not None else self._now
        theirs = max(self._now, crowd.reached) + crowd.queued - newest.tokens
        return [newest] if begins < theirs else []

    def _owner(self, name: str) -> _Owner[_TurnT]:
        owner = self._owners.get(name)
        if owner is None:
            if len(self._owners) >= self._sweep_at:
                self._sweep_owners()
            owner = self._owners[name] = _Owner()
        return owner

    def _enlist(self, name: str, owner: _Owner[_TurnT]) -> None:
        """Say where on the line the first of an owner's turns begins; an earlier word is void."""
        begins = max(self._now, owner.reached)
        if owner.entry is not None and owner.entry[0] == begins:
            return
        first = next(iter(owner.waiting))
        owner.entry = (begins, first, name)
        heapq.heappush(self._heap, owner.entry)
        if len(self._heap) > 2 * self._waiting_owners + _SLACK:
            self._heap = [each.entry for each in self._owners.values() if each.entry is not None]
            heapq.heapify(self._heap)

    def _take_out(self, turn: _TurnT, owner: _Owner[_TurnT]) -> None:
        first = next(iter(owner.waiting)) == turn.number
        del owner.waiting[turn.number]
        owner.queued -= turn.tokens
        self._length -= 1
        self._count(turn.owner, len(owner.waiting) + 1, len(owner.waiting))
        if first:
            owner.entry = None
            if owner.waiting:
                self._enlist(turn.owner, owner)

    def _count(self, name: str, before: int, after: int) -> None:
        """Move an owner to those who have so many waiting."""
        if before:
            crowd = self._crowds[before]
            del crowd[name]
            if not crowd:
                del self._crowds[before]
        else:
            self._waiting_owners += 1
        if after:
            self._crowds.setdefault(after, {})[name] = None
        else:
            self._waiting_owners -= 1
        if after > self._longest or (before == self._longest and before not in self._crowds):
            self._longest = after

    def _sweep_owners(self) -> None:
        """Drop those of whom nothing is left to know: a new one would begin at the same place."""
        self._owners = {
            name: owner
            for name, owner in self._owners.items()
            if owner.waiting or owner.reached > self._now
        }
        self._sweep_at = 2 * len(self._owners) + _SLACK
