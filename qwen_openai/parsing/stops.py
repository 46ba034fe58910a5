"""Stop strings, caught across any split of the text, with nothing of them let out.

Sans I/O: text in, safe text out. Each string is followed by a Knuth-Morris-Pratt automaton, so
work is linear in the text, however long and self-similar the strings are, and the result does not
depend on how the text was split. The string that is complete first ends the text; of several that
are complete at the same place, the longest.
"""


class StopStrings:
    """Feed text; get back what can be no part of a stop string. After a match `matched` is True and
    what `feed` returned was the text before it; nothing more may be fed, unless `go_on`."""

    __slots__ = ("_followers", "_found", "_held", "_include", "_rest", "matched")

    def __init__(self, stops: tuple[str, ...], *, include: bool = False) -> None:
        """`stops` are non-empty strings; without any, text passes through. With `include` the
        string that matches is let out as well, by `ending`."""
        self._include = include
        self._followers = [_Follower(stop) for stop in stops]
        self._held = ""
        # The string that matched, and what stands behind it.
        self._found = ""
        self._rest = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """Take the next piece and return the text that is now safe to send, perhaps none."""
        if not self._followers:
            return text
        best: tuple[int, int] | None = None
        hold = 0
        for follower in self._followers:
            end = follower.follow(text)
            if end is not None:
                candidate = (end, -len(follower.stop))
                best = candidate if best is None else min(best, candidate)
            elif follower.length > hold:
                hold = follower.length
        pending = self._held + text
        if best is not None:
            end, negative_length = best
            behind = len(self._held) + end
            start = behind + negative_length
            self._held, self._found, self._rest = "", pending[start:behind], pending[behind:]
            self.matched = True
            return pending[:start]
        cut = len(pending) - hold
        self._held = pending[cut:]
        return pending[:cut]

    def ending(self) -> str:
        """Return what of the string that matched is to be let out."""
        return self._found if self._include else ""

    def go_on(self) -> str:
        """The match is no end: let its string out, and read what stands behind it, as `feed`."""
        found, rest = self._found, self._rest
        self._found = self._rest = ""
        self.matched = False
        for follower in self._followers:
            follower.length = 0
        return found + self.feed(rest)

    def flush(self) -> str:
        """Return what is held back: the text is over, so it is no part of a stop string."""
        held, self._held = self._held, ""
        return held


class _Follower:
    """How much of one stop string the text so far ends with. `failure[k]` is the longest proper
    prefix of the string that its first k characters end with."""

    __slots__ = ("_failure", "length", "stop")

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.length = 0
        self._failure = [0, 0]
        k = 0
        for char in stop[1:]:
            while k and stop[k] != char:
                k = self._failure[k]
            k += stop[k] == char
            self._failure.append(k)

    def follow(self, text: str) -> int | None:
        """Read on; return where in `text` the string's first occurrence ends, None without one."""
        stop, failure, k = self.stop, self._failure, self.length
        index, size = 0, len(text)
        while index < size:
            if k == 0:
                index = text.find(stop[0], index)
                if index < 0:
                    break
                k = 1
            else:
                char = text[index]
                while k and stop[k] != char:
                    k = failure[k]
                k += stop[k] == char
            index += 1
            if k == len(stop):
                return index
        self.length = k
        return None
