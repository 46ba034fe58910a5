"""An answer followed through its grammar, and carried on token by token where llama.cpp left it.

llama.cpp's llguidance is older than ours and gives up on hard lexemes, after which llama.cpp goes
on as if there were no grammar. `Kept` lets out what keeps to it; `Stepper` says what may come next
and asks for one token of that. No I/O and no asyncio; making and moving a `Stepper` is CPU work.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from qwen_openai.core import Event, Finish, Started, Text
from qwen_openai.engines.llamacpp.chunks import Ask, Picked
from qwen_openai.engines.llamacpp.requests import Body, step_body
from qwen_openai.engines.masks import TokenMasks


class Follower(Protocol):
    """What follows a text through a grammar (`grammars.guard`)."""

    def feed(self, text: str) -> bool: ...

    @property
    def is_complete(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Held:
    """A request that is held to a grammar. ``ends`` are the tokens that end an answer of
    themselves, ``stops`` those that end this one wherever they come. ``param`` asked for it;
    ``watched`` is the job's."""

    ask: Ask
    body: Body
    grammar: str
    ids: Sequence[int]
    max_tokens: int
    ends: frozenset[int]
    stops: frozenset[int]
    param: str
    watched: bool


class Kept:
    """What of llama.cpp's own answer keeps to the grammar. ``left`` turns true where it strays, or
    ends where it may not; ``tokens`` are those let out."""

    def __init__(self, held: Held, follower: Follower) -> None:
        self.held = held
        self.left = False
        self.tokens = 0
        self.cached_tokens = 0
        self.pieces: list[tuple[str, Sequence[int]]] = []
        self._follower = follower

    def take(self, events: Iterable[Event], ids: Sequence[int]) -> list[Event]:
        """Return the events up to the first that strays; ``ids`` are the Translator's."""
        kept: list[Event] = []
        for event in events:
            if not self._keeps(event, ids):
                self.left = True
                break
            kept.append(event)
        return kept

    def _keeps(self, event: Event, ids: Sequence[int]) -> bool:
        if isinstance(event, Text):
            if not self._follower.feed(event.text):
                return False
            self.pieces.append((event.text, ids))
            self.tokens += event.tokens
        elif isinstance(event, Started):
            self.cached_tokens = event.cached_tokens
        elif isinstance(event, Finish) and event.reason == "stop":
            return self._follower.is_complete or not self.held.stops.isdisjoint(ids)
        return True


class Stepper:
    """Where an answer is in its grammar and what the next request is."""

    def __init__(self, kept: Kept, masks: TokenMasks) -> None:
        """Raises EngineFailed when the grammar is too much for masks as well."""
        self._held = held = kept.held
        self._mask = masks.start(held.grammar)
        self._ids = list(held.ids)
        self._asked = 0
        for text, ids in kept.pieces:
            raw = text.encode()
            # Of a character llama.cpp names the last token alone.
            same = b"".join(map(held.ask.piece, ids)) == raw
            for token in ids if same else masks.encode(raw):
                self._take(token)

    def next(self, token: int | None) -> int | Body:
        """Go on with ``token``; return the only one that may follow, where there is no choice, or a
        request for one of those that may. Raises EngineFailed."""
        if token is not None:
            self._take(token)
        allowed = self._mask.allowed()
        self._asked += 1
        only = self._only(allowed)
        return step_body(self._held.body, self._ids, allowed, self._asked) if only is None else only

    def _take(self, token: int) -> None:
        self._mask.take(token)
        self._ids.append(token)

    def _only(self, allowed: bytes) -> int | None:
        left = len(allowed) - allowed.count(0)
        ending = [number for number in self._held.ends if allowed[number : number + 1] > b"\0"]
        if len(ending) == left:
            return ending[0]
        if left == 1 and self._held.ask.logprobs is None:
            return len(allowed) - len(allowed.lstrip(b"\0"))
        return None


class Letters:
    """Tokens in, events out: Texts of whole characters, and the Finish."""

    def __init__(self, kept: Kept) -> None:
        self.tokens = kept.tokens
        self._held = kept.held
        self._cached = kept.cached_tokens
        self._raw = b""
        self._waiting = 0

    @property
    def is_full(self) -> bool:
        """Whether the answer has as many tokens as it may."""
        return self.tokens >= self._held.max_tokens

    def is_end(self, token: int) -> bool:
        return token in self._held.ends or token in self._held.stops

    def add(self, picked: Picked) -> list[Event]:
        """Return what a token brings: nothing while it is only a part of a character."""
        self.tokens += 1
        self._waiting += 1
        self._raw += self._held.ask.piece(picked.token)
        try:
            text = self._raw.decode()
        except UnicodeDecodeError:
            return []
        # The tokens of a character share one entry, the last's, as llama.cpp has it.
        entries = (
            () if picked.logprob is None else (replace(picked.logprob, text=text, raw=self._raw),)
        )
        made = Text(self._held.ask.started.index, text, self._waiting, entries)
        self._raw, self._waiting = b"", 0
        return [made]

    def stop(self) -> Finish:
        """The answer ended at a token, which is counted."""
        return Finish(self._held.ask.started.index, "stop", self.tokens + 1, self._cached)

    def cut(self) -> Finish:
        return Finish(self._held.ask.started.index, "length", self.tokens, self._cached)
