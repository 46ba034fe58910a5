"""What was seen of a stream, added up: the plain answer and every usage are made of it.

Knows events, no wire. True at every moment, also for a stream that was cut.
"""

from collections.abc import Sequence

from qwen_openai.core import (
    Event,
    Finish,
    FinishReason,
    Started,
    Text,
    ToolCall,
    ToolCallStart,
    Usage,
)


class FoldedChoice:
    """One choice so far; `reason` is None until it is finished."""

    __slots__ = (
        "_calls",
        "_pieces",
        "cached_tokens",
        "completion_tokens",
        "prompt_tokens",
        "reason",
        "started",
    )

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._calls: list[tuple[ToolCallStart, list[str]]] = []
        self.reason: FinishReason | None = None
        self.started = False
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0

    @property
    def text(self) -> str:
        """The answer's text so far."""
        return "".join(self._pieces)

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The calls so far, in order."""
        return [ToolCall(call.id, call.name, "".join(pieces)) for call, pieces in self._calls]

    def begin_call(self, event: ToolCallStart) -> None:
        """Take a call's id and name; calls begin in the order of their numbers."""
        self._calls.append((event, []))

    def add_arguments(self, call: int, text: str) -> None:
        """Append a piece to the arguments of a call that has begun."""
        self._calls[call][1].append(text)

    def add_text(self, event: Text) -> None:
        """Append a piece and count its tokens."""
        self._pieces.append(event.text)
        self.completion_tokens += event.tokens

    def finish(self, event: Finish) -> None:
        """Take the end. A count given there is the exact one and replaces the sum."""
        self.reason = event.reason
        if event.completion_tokens is not None:
            self.completion_tokens = event.completion_tokens
        if event.cached_tokens is not None:
            self.cached_tokens = event.cached_tokens


class Fold:
    """Add every event of all choices, in the order they come."""

    def __init__(self, n: int) -> None:
        self.choices = [FoldedChoice() for _ in range(n)]

    def add(self, event: Event) -> None:
        """Take one event."""
        choice = self.choices[event.index]
        if isinstance(event, Text):
            choice.add_text(event)
        elif isinstance(event, Started):
            choice.started = True
            choice.prompt_tokens = event.prompt_tokens
            choice.cached_tokens = event.cached_tokens
        elif isinstance(event, ToolCallStart):
            choice.begin_call(event)
        elif isinstance(event, Finish):
            choice.finish(event)
        else:
            choice.add_arguments(event.call, event.text)

    @property
    def usage(self) -> Usage:
        """The tokens of the request so far. The prompt counts once, however many choices: as the
        lowest choice that has started had it."""
        first = next((choice for choice in self.choices if choice.started), None)
        return Usage(
            prompt_tokens=first.prompt_tokens if first else 0,
            completion_tokens=sum(choice.completion_tokens for choice in self.choices),
            cached_tokens=first.cached_tokens if first else 0,
        )
