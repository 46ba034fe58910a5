"""The seam between the gateway and whatever generates text.

An engine has slots, not a queue: the gateway's admission lets in at most `EngineInfo.slots` jobs.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from qwen_openai.core import Event, Job, Thinking, ToolSyntax


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a job sent now would be taken, and one sentence why. ``lost`` says that only a new
    process can take jobs again."""

    ready: bool
    detail: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine runs. ``context`` is tokens of prompt and answer together in one slot;
    ``memory`` is bytes, measured or estimated; ``facts`` are further lines for the start panel;
    ``family`` names the row of `families` where the weights tell it, "" where only the name can.

    ``tools`` and ``thinking`` are what the loaded model's own prompt can do. ``fills_in`` says that
    its vocabulary has the family's tokens for text with a gap. ``refuses`` names the parameters of
    chat completions that this engine cannot honour, though others can. ``dtype`` is what numbers it
    computes with, "" where there is no choice of them.

    ``hands_on`` says that it hands requests on to another server, which holds the model: its jobs
    bring `Job.asked`, and what comes back is what that server made of stop strings, formats, calls
    and thoughts.
    """

    engine: str
    model: str
    device: str
    context: int
    slots: int
    memory: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    family: str = ""
    tools: ToolSyntax | None = None
    thinking: Thinking = "never"
    fills_in: bool = False
    refuses: frozenset[str] = frozenset()
    dtype: str = ""
    hands_on: bool = False


class Engine(Protocol):
    """One way to generate text.

    `generate` yields, for one choice: one Started, any number of Text, exactly one Finish. Closing
    the generator (`aclose`) cancels the work at once, also before the first event. A failure is an
    `errors.ApiError` raised out of the iterator.
    """

    async def start(self) -> None:
        """Load what is needed; return when jobs can be taken. Raises errors.StartupError."""

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run one choice of a job. Raises InvalidRequest, ContextLengthExceeded, EngineFailed,
        EngineUnavailable."""

    async def tokenize(self, job: Job) -> list[int]:
        """Return the ids of a job's prompt, whatever their number. Raises InvalidRequest,
        EngineUnavailable."""

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token. Raises InvalidRequest for an id that is none."""

    async def aclose(self) -> None:
        """Stop the work in flight and free everything. Safe to call twice, or before start."""

    def health(self) -> Health:
        """Cheap and immediate."""

    def info(self) -> EngineInfo:
        """Valid after start."""
