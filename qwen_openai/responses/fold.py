"""What was seen of a stream, added up: the plain answer and every usage are made of it.

Knows events, no wire. True at every moment, also for a stream that was cut.
"""

from qwen_openai.core import Event, FinishReason, Started, Text, Usage


class FoldedChoice:
    """One choice so far; `reason` is None until it is finished."""

    __slots__ = (
        "_pieces",
        "cached_tokens",
        "completion_tokens",
        "prompt_tokens",
        "reason",
        "started",
    )

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.reason: FinishReason | None = None
        self.started = False
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0

    @property
    def text(self) -> str:
        """The answer's text so far."""
        return "".join(self._pieces)

    def add_text(self, event: Text) -> None:
        """Append a piece and count its tokens."""
        self._pieces.append(event.text)
        self.completion_tokens += event.tokens


class Fold:
    """Add every event of all choices, in the order they come."""

    def __init__(self, n: int) -> None:
        self.choices = [FoldedChoice() for _ in range(n)]

    def add(self, event: Event) -> None:
        """Take one event. A count given at the end is the exact one and replaces the sum."""
        choice = self.choices[event.index]
        if isinstance(event, Text):
            choice.add_text(event)
        elif isinstance(event, Started):
            choice.started = True
            choice.prompt_tokens = event.prompt_tokens
            choice.cached_tokens = event.cached_tokens
        else:
            choice.reason = event.reason
            if event.completion_tokens is not None:
                choice.completion_tokens = event.completion_tokens
            if event.cached_tokens is not None:
                choice.cached_tokens = event.cached_tokens

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
