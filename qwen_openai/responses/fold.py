"""What was seen of a stream, added up: the plain answer and every usage are made of it.

Knows events, no wire. True at every moment, also for a stream that was cut.
"""

from collections.abc import Sequence

from qwen_openai.core import (
    Event,
    Extra,
    Finish,
    FinishReason,
    Reasoning,
    Started,
    Text,
    TokenLogprob,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
    Usage,
)
from qwen_openai.responses.extras import Kept, nothing


class FoldedChoice:
    """One choice so far; `reason` is None until it is finished.

    `logprobs` are those of all tokens in the order they were generated, whatever became of them:
    thoughts, text or calls.
    """

    __slots__ = (
        "_calls",
        "_pieces",
        "_reasoning_tokens",
        "_thoughts",
        "cached_tokens",
        "completion_tokens",
        "extra",
        "logprobs",
        "prompt_tokens",
        "reason",
        "started",
    )

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[tuple[ToolCallStart, list[str]]] = []
        self._reasoning_tokens = 0
        self.logprobs: list[TokenLogprob] = []
        self.extra: Kept | None = None
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
    def reasoning(self) -> str:
        """The thoughts so far."""
        return "".join(self._thoughts)

    @property
    def reasoning_tokens(self) -> int:
        """The tokens of the thoughts, which are among the completion's."""
        return min(self._reasoning_tokens, self.completion_tokens)

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
        self.logprobs += event.logprobs
        self.completion_tokens += event.tokens

    def add_reasoning(self, event: Reasoning) -> None:
        """Append a piece of the thoughts and count its tokens."""
        self._thoughts.append(event.text)
        self.logprobs += event.logprobs
        self.completion_tokens += event.tokens
        self._reasoning_tokens += event.tokens

    def add_extra(self, event: Extra) -> None:
        """Keep members that an upstream sent and we have no place for."""
        if self.extra is None:
            self.extra = nothing()
        self.extra.add(event)

    def finish(self, event: Finish) -> None:
        """Take the end. A count given there is the exact one and replaces the sum."""
        self.reason = event.reason
        if event.completion_tokens is not None:
            self.completion_tokens = event.completion_tokens
        if event.cached_tokens is not None:
            self.cached_tokens = event.cached_tokens
        if event.prompt_tokens is not None:
            self.prompt_tokens = event.prompt_tokens
        if event.reasoning_tokens is not None:
            self._reasoning_tokens = event.reasoning_tokens


class Fold:
    """Add every event of all choices, in the order they come.

    The choices are ``prompts`` groups of ``n``: those of the first prompt, then those of the
    second, and so on.
    """

    def __init__(self, n: int, *, prompts: int = 1) -> None:
        self._n = n
        self.choices = [FoldedChoice() for _ in range(n * prompts)]

    def add(self, event: Event) -> None:
        """Take one event."""
        choice = self.choices[event.index]
        if isinstance(event, Text):
            choice.add_text(event)
        elif isinstance(event, Reasoning):
            choice.add_reasoning(event)
        elif isinstance(event, Started):
            choice.started = True
            choice.prompt_tokens = event.prompt_tokens
            choice.cached_tokens = event.cached_tokens
        elif isinstance(event, ToolCallStart):
            choice.begin_call(event)
        elif isinstance(event, Finish):
            choice.finish(event)
        elif isinstance(event, ToolCallArguments):
            choice.add_arguments(event.call, event.text)
        elif isinstance(event, Extra):
            choice.add_extra(event)

    def of_prompt(self, prompt: int) -> Sequence[FoldedChoice]:
        """The choices that were made of one prompt."""
        return self.choices[prompt * self._n : (prompt + 1) * self._n]

    @property
    def prompts(self) -> int:
        """The number of prompts."""
        return len(self.choices) // self._n

    @property
    def extra(self) -> Kept:
        """What upstreams sent beyond our shapes, of all choices; the last of a name holds."""
        kept = nothing()
        for choice in self.choices:
            if choice.extra is not None:
                kept.body.update(choice.extra.body)
                kept.usage.update(choice.extra.usage)
        return kept

    @property
    def usage(self) -> Usage:
        """The tokens of the request so far. Each prompt counts once, however many choices: as the
        lowest choice that has started had it."""
        firsts = [
            choice
            for prompt in range(self.prompts)
            for choice in [each for each in self.of_prompt(prompt) if each.started][:1]
        ]
        return Usage(
            prompt_tokens=sum(choice.prompt_tokens for choice in firsts),
            completion_tokens=sum(choice.completion_tokens for choice in self.choices),
            cached_tokens=sum(choice.cached_tokens for choice in firsts),
            reasoning_tokens=sum(choice.reasoning_tokens for choice in self.choices),
        )
