"""Jobs as a checkpoint takes them: history pairs for a Qwen-1, a seed for each choice, and
the tokens of a prompt for those who only count them.

What comes before the first step of the model, whichever engine makes it; imports no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from qwen_openai.adapter.history import to_history
from qwen_openai.core import Job
from qwen_openai.models.checkpoint import Checkpoint
from qwen_openai.prompting.prepare import prompt_ids
from qwen_openai.prompting.renderer import PromptRenderer

_INT64 = 2**64


class LocalRenderer(PromptRenderer, Protocol):
    """A renderer with the model's whole vocabulary."""

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token. Raises InvalidRequest for an id that is none."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tells of a model's tokens, from any thread, beside the one that answers: the ids of a job's
    prompt, and the bytes of ids. Both block; both raise InvalidRequest."""

    encode: Callable[[Job], list[int]]
    decode: Callable[[Sequence[int]], list[bytes]]


def tokens_of(checkpoint: Checkpoint, renderer: LocalRenderer) -> Tokens:
    """Return what tells of tokens; it keeps the model's vocabulary alive, not its weights."""

    def encode(job: Job) -> list[int]:
        return prompt_ids(as_trained(checkpoint, job)[0], renderer)

    return Tokens(encode, renderer.pieces)


def seed_of(job: Job) -> int | None:
    """The seed of the job's choice: each choice of a given seed draws its own, as int64."""
    if job.sampling.seed is None:
        return None
    wide = (job.sampling.seed + job.choice) % _INT64
    return wide - _INT64 if wide >= _INT64 // 2 else wide


def as_trained(checkpoint: Checkpoint, job: Job) -> tuple[Job, tuple[str, ...]]:
    """Qwen-1 was trained on pairs of query and answer: bring the messages into that form."""
    if checkpoint.qwen1 is None or job.prompt is not None:
        return job, ()
    dialogue = to_history(job.messages, tools=job.tools, continue_final=job.continue_final_message)
    continues = dialogue.prefix is not None
    paired = replace(job, messages=dialogue.messages(), continue_final_message=continues)
    return paired, dialogue.changes
