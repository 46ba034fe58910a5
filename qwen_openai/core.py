"""The values that travel through the house: a Job goes in, Events come out.

Frozen and slotted; no I/O, no HTTP, no tensors. The adapter makes a Job from a wire request, an
engine turns it into Events, the parser chain refines them, a renderer makes wire bodies of them.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
# How tools are told to a model and calls are read from its text.
ToolSyntax = Literal["react"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. ``parameters`` is its JSON Schema, None for a function
    that takes none."""

    name: str
    description: str = ""
    parameters: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made in an earlier turn; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, its text parts already joined.

    ``tool_calls`` are an assistant's; ``tool_call_id`` says which of them a ``tool`` message, whose
    content is the result, answers.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to pick tokens, every value decided (the adapter has filled in the family's defaults).

    Semantics and ranges are OpenAI's and vLLM's. ``temperature`` 0 means greedy. ``top_k`` 0 means
    off. ``seed`` is any int64; None means a fresh one. ``max_tokens`` None means the engine's
    default limit. ``stop`` strings are matched by the parser chain, not by engines.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken: below this temperature no other one has a
        chance left, and engines that divide by it leave the range of their numbers."""
        return self.temperature < 1e-3


@dataclass(frozen=True, slots=True)
class Job:
    """One request, as an engine sees it.

    ``choice`` is which of the ``n`` answers this job makes: an engine makes one answer a job,
    stamps every event with this index and adds it to a given seed; the service fans out.
    ``max_total`` bounds prompt and answer together (the tutorial's max_length). With
    ``drop_oldest_pairs`` the oldest user/assistant pairs that do not fit are left out and reported,
    otherwise a prompt that does not fit is refused. ``tools`` are those that the model is told of,
    in ``tool_syntax``, and ``parallel_tool_calls`` False ends the answer after one call.
    ``watched`` is False where nobody reads the answer before it is complete. ``changes`` is what
    the adapter altered, one short phrase each; ``ignored`` names parameters that have no effect.
    """

    id: str
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    n: int = 1
    choice: int = 0
    continue_final_message: bool = False
    max_total: int | None = None
    drop_oldest_pairs: bool = False
    tools: tuple[Tool, ...] = ()
    tool_syntax: ToolSyntax | None = None
    parallel_tool_calls: bool = True
    watched: bool = True
    changes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The engine took the job: first event of every stream, once.

    ``changes`` is what the engine altered (a clamped max_tokens, dropped history).
    """

    index: int
    prompt_tokens: int
    cached_tokens: int = 0
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of answer text that took ``tokens`` tokens; whole code points, perhaps empty."""

    index: int
    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """The model calls a function; ``call`` counts the choice's calls from 0. The tokens are counted
    by Text events, which may be empty."""

    index: int
    call: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """A piece of a call's arguments; all pieces of one call together are valid JSON."""

    index: int
    call: int
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The choice is complete: last event of its stream, once.

    ``completion_tokens`` is the exact number of tokens generated for the choice, the stop token
    included; None lets the reader add up what it saw. ``cached_tokens`` likewise, where an engine
    learns it only at the end.
    """

    index: int
    reason: FinishReason
    completion_tokens: int | None = None
    cached_tokens: int | None = None


Event = Started | Text | ToolCallStart | ToolCallArguments | Finish


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request: the prompt counted once, the completions of all choices added."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
