"""The values that travel through the house: a Job goes in, Events come out.

Frozen and slotted; no I/O, no HTTP, no tensors. The adapter makes a Job from a wire request, an
engine turns it into Events, the parser chain refines them, a renderer makes wire bodies of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
# How tools are told to a model and calls are read from its text: lines of labels (Qwen-1), JSON in
# <tool_call> tags (Qwen2.5, Qwen3), or XML-like tags in them (Qwen3-Coder, Qwen3.5 and later).
ToolSyntax = Literal["react", "hermes", "xml"]
# Whether a model writes thoughts before its answer: never, always, or as `enable_thinking` says.
Thinking = Literal["never", "always", "switched"]
TemplateValue = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. ``parameters`` is its JSON Schema, None for a function
    that takes none; with ``strict`` the arguments are made to match it."""

    name: str
    description: str = ""
    parameters: dict[str, object] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made in an earlier turn; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, its text parts already joined.

    ``reasoning`` is what an assistant thought before its content, where the caller sent it back.
    ``tool_calls`` are an assistant's; ``tool_call_id`` says which of them a ``tool`` message, whose
    content is the result, answers.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt that is no conversation: the caller's own text, in which control tokens are what
    they say, or token ids. With ``suffix`` the model fills in what stands between the two."""

    text: str | tuple[int, ...]
    suffix: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to pick tokens, every value decided (the adapter has filled in the family's defaults).

    Semantics and ranges are OpenAI's and vLLM's. ``temperature`` 0 means greedy. ``top_k`` 0 means
    off. ``seed`` is any int64; None means a fresh one. ``max_tokens`` None means the engine's
    default limit. ``stop`` strings are matched by the parser chain, not by engines, and sent along
    with ``include_stop``. ``stop_token_ids`` end an answer too; their text is never part of it.
    With ``ignore_eos`` no token of the model's own ends it; before ``min_tokens`` none at all does.
    ``logit_bias`` is (token id, bias from -100 to 100), where -100 bans the token. ``logprobs``
    None asks for none, k for each token's own and those of the k likeliest, of the model's
    distribution before any of these parameters changed it.
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
    include_stop: bool = False
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken: below this temperature no other one has a
        chance left, and engines that divide by it leave the range of their numbers."""
        return self.temperature < 1e-3


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must match, after any thoughts: Lark rules as llguidance reads them, the root
    of which is `answer` (made by `grammars.build`). ``param`` is the parameter that asked for it,
    for errors."""

    rules: str
    param: str


@dataclass(frozen=True, slots=True)
class Job:
    """One request, as an engine sees it.

    ``choice`` is which of the ``n`` answers this job makes: an engine makes one answer a job,
    stamps every event with this index and adds it to a given seed; routes make the jobs.
    ``max_total`` bounds prompt and answer together (the tutorial's max_length). With
    ``drop_oldest_pairs`` the oldest user/assistant pairs that do not fit are left out and reported,
    otherwise a prompt that does not fit is refused. ``prompt``, where given, stands in place of
    messages.

    ``tools`` are those that the model is told of and may call, in ``tool_syntax``; with
    ``bare_calls`` an answer that is nothing but a call of one of them, as JSON, perhaps in a fence,
    counts as a call. With ``calls_lead`` an answer that does not begin with a call has none: its
    text has a format of its own. ``parallel_tool_calls`` False ends the answer after one call.
    ``calls_reason`` is how an answer with calls is finished.

    ``grammar`` is enforced by engines and checked by the parser chain.

    ``enable_thinking`` and ``template_options`` go to the chat template; None leaves the choice to
    it. ``thinks`` says that the answer may begin with thoughts, which are split off.

    ``asked`` are the members of the caller's body but `messages`, `prompt` and `stream`, as they
    were checked, for an engine that hands requests on; None where the body was another kind's.

    ``trace`` is the caller's W3C traceparent, to be passed on; "" for none.

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
    bare_calls: bool = False
    calls_lead: bool = False
    parallel_tool_calls: bool = True
    calls_reason: FinishReason = "tool_calls"
    grammar: Grammar | None = None
    enable_thinking: bool | None = None
    template_options: tuple[tuple[str, TemplateValue], ...] = ()
    thinks: bool = False
    prompt: RawPrompt | None = None
    asked: Mapping[str, object] | None = None
    trace: str = ""
    watched: bool = True
    changes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """The job has a slot, ``waited`` seconds after it asked for one: made by the service."""

    index: int
    waited: float


@dataclass(frozen=True, slots=True)
class Routed:
    """The job goes to an upstream, by its name, for the ``attempt``-th time, counted from 1. Comes
    before `Started`, and again for each further attempt; engines that are no pool send none."""

    index: int
    upstream: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Extra:
    """Members that an upstream sent and no other event has room for, to go out as they came:
    ``body`` beside `choices`, ``choice`` in the choice, ``delta`` in its delta or message,
    ``usage`` in the usage. They belong to the event that follows."""

    index: int
    body: Mapping[str, object] = field(default_factory=dict)
    choice: Mapping[str, object] = field(default_factory=dict)
    delta: Mapping[str, object] = field(default_factory=dict)
    usage: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Started:
    """The engine took the job: first event of every engine's stream, once.

    ``changes`` is what the engine altered (a clamped max_tokens, dropped history). ``in_thought``
    says that the prompt ends inside a thought which the chat template opened.
    """

    index: int
    prompt_tokens: int
    cached_tokens: int = 0
    changes: tuple[str, ...] = ()
    in_thought: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's text (broken UTF-8 replaced), its real bytes, the natural logarithm of its
    probability, and the likeliest tokens at its place, likeliest first, themselves without any."""

    text: str
    raw: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of answer text that took ``tokens`` tokens; whole code points, perhaps empty.

    ``logprobs`` are those tokens', where the job asks for them. An engine that cannot tell the
    tokens of one character apart makes one entry of them.
    """

    index: int
    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the thoughts before the answer, like Text; made by the parser chain."""

    index: int
    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] = ()


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
    included; None lets the reader add up what it saw. ``cached_tokens``, ``prompt_tokens`` and
    ``reasoning_tokens`` likewise, where an engine learns them only at the end.
    """

    index: int
    reason: FinishReason
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    prompt_tokens: int | None = None
    reasoning_tokens: int | None = None


Event = (
    Admitted
    | Routed
    | Extra
    | Started
    | Text
    | Reasoning
    | ToolCallStart
    | ToolCallArguments
    | Finish
)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request: the prompt counted once, the completions of all choices added.
    ``reasoning_tokens`` are part of the completions."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
