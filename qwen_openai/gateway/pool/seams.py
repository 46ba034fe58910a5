"""What the pool asks of an upstream's client, so that it need not know how one is made."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol

from qwen_openai.core import Event, Job
from qwen_openai.upstreams import Kind, Upstream


class Seen(Protocol):
    """What a look at an upstream has shown: its models' names, each with its context in tokens if
    it was told, and what the server is."""

    @property
    def models(self) -> Mapping[str, int | None]: ...
    @property
    def kind(self) -> Kind: ...


class Client(Protocol):
    """One server. Every method makes one attempt and raises an ApiError for what fails."""

    @property
    def kind(self) -> Kind: ...

    @kind.setter
    def kind(self, kind: Kind) -> None: ...

    async def look(self) -> Seen:
        """Ask what it serves, cheaply."""

    def generate(self, job: Job, model: str) -> AsyncGenerator[Event, None]:
        """Run a job under the server's own name of the model; closing it closes the connection."""

    async def tokenize(self, job: Job, model: str) -> list[int]:
        """Return the ids of a job's prompt."""

    async def detokenize(self, ids: Sequence[int], model: str) -> list[bytes]:
        """Return the bytes of each token."""


class Verdict(Protocol):
    """What a failure means: whether another upstream may do better, whether this one is to blame,
    and for how many seconds it asked to be left alone."""

    @property
    def elsewhere(self) -> bool: ...
    @property
    def blames(self) -> bool: ...
    @property
    def pause(self) -> float | None: ...


Connect = Callable[[Upstream], Client]
Judge = Callable[[Exception], Verdict]
