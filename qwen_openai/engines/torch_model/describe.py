"""What a checkpoint and its renderer are, for whoever runs it: which tokens end an answer, and what
there is to say of it.

Looks at names and facts alone; knows no weights and imports no torch.
"""

from dataclasses import replace
from typing import Protocol

from qwen_openai.core import Thinking, ToolSyntax
from qwen_openai.engines.base import EngineInfo
from qwen_openai.families import family_named, family_of
from qwen_openai.models.checkpoint import Checkpoint


class Vocabulary(Protocol):
    """What knows the tokens of a model."""

    def token_id(self, token: str) -> int | None:
        """Return the id of a control token, None where the model has none."""


class Abilities(Protocol):
    """What a model's prompts can do, as in `EngineInfo`."""

    @property
    def tools(self) -> ToolSyntax | None: ...

    @property
    def thinking(self) -> Thinking: ...

    @property
    def fills_in(self) -> bool: ...


def family_ends(checkpoint: Checkpoint, vocabulary: Vocabulary) -> frozenset[int]:
    """Return the ids of the control tokens at which models of this generation end an answer,
    whatever the directory's own settings say."""
    family = family_named("qwen1") if checkpoint.qwen1 else family_of(checkpoint.name)
    ids = (vocabulary.token_id(token) for token in family.stop_tokens)
    return frozenset(number for number in ids if number is not None)


def described(
    info: EngineInfo, checkpoint: Checkpoint, abilities: Abilities, dtype: object
) -> EngineInfo:
    """Add to ``info`` what every engine says of a checkpoint: its kind of numbers, a Qwen-1's
    layout, its family and what its prompts can do. ``dtype`` is a torch.dtype, or its name."""
    facts = [("computes in", dtype_name(dtype)), *info.facts]
    if checkpoint.raw:
        facts.append(("layout", "Qwen-1, converted while loading"))
    return replace(
        info,
        facts=tuple(facts),
        family="qwen1" if checkpoint.qwen1 is not None else "",
        tools=abilities.tools,
        thinking=abilities.thinking,
        fills_in=abilities.fills_in,
        dtype=dtype_name(dtype),
    )


def dtype_name(dtype: object) -> str:
    """Return "float32" for what torch calls "torch.float32"."""
    return str(dtype).removeprefix("torch.")
