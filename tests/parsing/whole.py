"""A choice's chain from end to end: tokens in, and what its events add up to."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from qwen_openai.core import (
    Event,
    Finish,
    FinishReason,
    Job,
    Reasoning,
    Started,
    Text,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.parsing.chain import AnswerGuard, Chain
from tests.parsing.reading import Call


def job(**changes: object) -> Job:
    return replace(Job("x", "m", ()), **changes)  # type: ignore[arg-type]  # names fields of Job


@dataclass
class Whole:
    """A choice's events, added up."""

    reasoning: str = ""
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    reason: FinishReason | None = None
    tokens: int = 0
    reasoning_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def add(self, event: Event) -> None:
        assert self.reason is None, "nothing comes behind a Finish"
        if isinstance(event, Text | Reasoning):
            self.logprobs += event.logprobs
            self.tokens += event.tokens
        if isinstance(event, Text):
            self.text += event.text
        elif isinstance(event, Reasoning):
            self.reasoning += event.text
            self.reasoning_tokens += event.tokens
        elif isinstance(event, ToolCallStart):
            assert event.call == len(self.calls)
            self.calls.append(Call(event.name, ""))
        elif isinstance(event, ToolCallArguments):
            before = self.calls[event.call]
            self.calls[event.call] = Call(before.name, before.arguments + event.text)
        elif isinstance(event, Finish):
            self.reason = event.reason
            self.tokens = event.completion_tokens or self.tokens


def tokens_of(pieces: Sequence[str]) -> list[Text]:
    """A token for each piece, with its entry."""
    return [Text(0, piece, 1, (TokenLogprob(piece, piece.encode(), -0.5),)) for piece in pieces]


def run(
    job: Job,
    pieces: Sequence[str],
    *,
    reason: FinishReason = "stop",
    in_thought: bool = False,
    guard: AnswerGuard | None = None,
) -> Whole:
    chain, whole = Chain(job, guard), Whole()
    fed: list[Event] = [Started(0, 5, in_thought=in_thought), *tokens_of(pieces)]
    for event in (*fed, Finish(0, reason)):
        for out in chain.feed(event):
            whole.add(out)
        if whole.reason is not None:
            break
    return whole
