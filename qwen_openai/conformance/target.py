"""The server that is tried: one model of it, through plain HTTP and through the official SDK.

What several facts look at is asked for once and kept. Knows how to ask, not what is right.
"""

from functools import cached_property

import openai

from qwen_openai.conformance.fact import Failed, NotApplicable, expect
from qwen_openai.conformance.http import Http, Json, Reply

CHAT = "/chat/completions"
GREETING = [{"role": "user", "content": "Say hello in one short sentence."}]

WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ASKING = [{"role": "user", "content": "What is the weather in Paris?"}]
NAMED = {"type": "function", "function": {"name": "get_weather"}}


class Target:
    """One model at one address."""

    def __init__(self, base_url: str, model: str, key: str | None, *, timeout: float) -> None:
        """``base_url`` as the SDK takes it; ``timeout`` is seconds without a byte."""
        self.base_url = base_url
        self.model = model
        self.key = key
        self.timeout = timeout
        self.http = Http(base_url, key, timeout)

    @cached_property
    def sdk(self) -> openai.OpenAI:
        """The official client; it does not try again by itself."""
        return openai.OpenAI(
            base_url=self.base_url, api_key=self.key or "none", max_retries=0, timeout=self.timeout
        )

    def body(self, **members: object) -> Json:
        """A short, greedy request, with some members set or (None) left out."""
        body = {
            "model": self.model,
            "messages": GREETING,
            "max_tokens": 24,
            "temperature": 0,
            **members,
        }
        return {name: value for name, value in body.items() if value is not None}

    def ask(self, **members: object) -> Reply:
        """Send that request, whatever comes back."""
        return self.http.post(CHAT, self.body(**members))

    def answer(self, **members: object) -> Json:
        """The body of an answer. Raises Failed unless it is a 200."""
        reply = self.ask(**members)
        expect(reply.status == 200, f"status {reply.status}: {reply.body[:200]!r}")
        return reply.json()

    def chunks(self, **members: object) -> list[Json]:
        """The chunks of a streamed answer. Raises Failed."""
        return self.ask(stream=True, **members).events()

    @cached_property
    def plain_reply(self) -> Reply:
        """A plain answer, as it came."""
        return self.ask()

    @cached_property
    def plain(self) -> Json:
        """A plain answer's body."""
        expect(self.plain_reply.status == 200, f"status {self.plain_reply.status}")
        return self.plain_reply.json()

    @cached_property
    def stream_reply(self) -> Reply:
        """A stream that was not asked for its usage, as it came."""
        return self.ask(stream=True)

    @cached_property
    def stream(self) -> list[Json]:
        """Its chunks."""
        return self.stream_reply.events()

    @cached_property
    def counted(self) -> list[Json]:
        """The chunks of a stream that was asked for its usage."""
        return self.chunks(stream_options={"include_usage": True})

    @cached_property
    def refusal(self) -> Reply:
        """What an unknown model gets."""
        return self.ask(model="no-such-model-anywhere")

    @cached_property
    def call(self) -> Json:
        """An answer that had to call `get_weather`."""
        return self.answer(messages=ASKING, tools=[WEATHER], tool_choice=NAMED, max_tokens=96)

    @cached_property
    def call_chunks(self) -> list[Json]:
        """The same, streamed."""
        return self.chunks(messages=ASKING, tools=[WEATHER], tool_choice=NAMED, max_tokens=96)


def objects(value: object, what: str) -> list[Json]:
    """A list of objects. Raises Failed."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Failed(f"{what} is no list of objects")
    return value


def member(value: Json, name: str) -> Json:
    """A member that is an object. Raises Failed."""
    found = value.get(name)
    if not isinstance(found, dict):
        raise Failed(f"{name} is no object: {found!r}")
    return found


def first_choice(body: Json) -> Json:
    """The first choice of an answer. Raises Failed."""
    choices = objects(body.get("choices"), "choices")
    expect(choices, "choices is empty")
    return choices[0]


def message(body: Json) -> Json:
    """The first choice's message. Raises Failed."""
    return member(first_choice(body), "message")


def choices_of(chunks: list[Json]) -> list[Json]:
    """All choices of all chunks, in order."""
    return [each for chunk in chunks for each in objects(chunk.get("choices"), "choices")]


def text_of(chunks: list[Json], index: int = 0) -> str:
    """A choice's content, put together."""
    deltas = [member(c, "delta") for c in choices_of(chunks) if c.get("index") == index]
    return "".join(str(delta.get("content") or "") for delta in deltas)


def applicable(condition: object, reason: str) -> None:
    """Raise NotApplicable unless the condition is true."""
    if not condition:
        raise NotApplicable(reason)
