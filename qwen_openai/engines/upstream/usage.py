"""What another server says of tokens: told once, told all along, or not at all. Sans I/O.

Source of the shape: OpenAI's specification 2.3.0, CompletionUsage.
"""

from qwen_openai.core import Finish, FinishReason, Started
from qwen_openai.engines.upstream.members import collect, sendable

_MEMBERS = frozenset(
    (
        *("prompt_tokens", "completion_tokens", "total_tokens"),
        *("prompt_tokens_details", "completion_tokens_details"),
    )
)
_DETAILS = (
    ("prompt_tokens_details", frozenset(("cached_tokens",))),
    ("completion_tokens_details", frozenset(("reasoning_tokens",))),
)
_MOST = 2**53


class Usage:
    """Adds up one answer's tokens. ``extra`` is what a usage holds beyond what events tell."""

    __slots__ = ("_completion", "_estimate", "_given", "_spent", "extra")

    def __init__(self, estimate: int) -> None:
        """``estimate`` stands for the prompt's tokens until they are told."""
        self.extra: dict[str, object] = {}
        self._estimate = estimate
        self._given: dict[str, object] = {}
        self._completion: int | None = None
        self._spent = 0

    def take(self, usage: object) -> None:
        """Take a usage; the last one holds. Anything but an object is nothing."""
        if type(usage) is dict:
            self._given = usage
            self._completion = _count(usage.get("completion_tokens"))

    def started(self, index: int, changes: tuple[str, ...]) -> Started:
        """The first event, with what is known of the prompt by now."""
        prompt = _count(self._given.get("prompt_tokens"))
        cached = self._detail("prompt_tokens_details", "cached_tokens")
        return Started(index, self._estimate if prompt is None else prompt, cached or 0, changes)

    def spent(self) -> int:
        """Return the tokens since it was asked last: one unless the usage says otherwise."""
        told = self._completion
        tokens = 1 if told is None else max(told - self._spent, 0)
        self._spent += tokens
        return tokens

    def reckoned(self, what: object, *, last: bool) -> int:
        """Return about how many tokens a piece of a whole answer has; the last one has the rest."""
        tokens = len(what) // 4 + 1 if isinstance(what, str) else 0
        if self._completion is not None:
            rest = max(self._completion - self._spent, 0)
            tokens = rest if last else min(tokens, rest)
        self._spent += tokens
        return tokens

    def finish(self, index: int, reason: FinishReason) -> Finish:
        """The last event, with all that was told. Raises TypeError for a member that cannot be
        sent on."""
        self._keep_extra()
        reasoning = self._detail("completion_tokens_details", "reasoning_tokens")
        return Finish(
            index,
            reason,
            self._completion,
            self._detail("prompt_tokens_details", "cached_tokens"),
            _count(self._given.get("prompt_tokens")),
            reasoning or None,
        )

    def _detail(self, group: str, name: str) -> int | None:
        details = self._given.get(group)
        return _count(details.get(name)) if type(details) is dict else None

    def _keep_extra(self) -> None:
        """Note the members that no event has. Raises TypeError for what cannot be sent on."""
        collect(self.extra, self._given, _MEMBERS)
        for group, known in _DETAILS:
            details = self._given.get(group)
            if type(details) is dict:
                kept = {key: each for key, each in details.items() if key not in known and each}
                if kept:
                    self.extra[group] = sendable(kept)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _MOST else None
