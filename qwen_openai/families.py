"""A row for each Qwen generation: what differs between them is data here, never an `if` elsewhere.

Figures are those of Qwen's model cards and generation configs.
"""

from dataclasses import dataclass
from typing import Literal

from qwen_openai.core import ToolSyntax

# How the prompt is made: by the model's own chat template, or as Qwen-1's history pairs.
PromptKind = Literal["template", "pairs"]


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What a request that says nothing gets, and what the model's makers recommend."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    min_p: float = 0.0


@dataclass(frozen=True, slots=True)
class Family:
    """One generation. ``matches`` are lower-case fragments of a model's name, tried in table order;
    ``stop_tokens`` end an answer; without a tool syntax ``tools`` are refused."""

    name: str
    matches: tuple[str, ...]
    sampling: SamplingDefaults
    stop_tokens: tuple[str, ...] = ("<|im_end|>", "<|endoftext|>")
    prompt: PromptKind = "template"
    tools: ToolSyntax | None = None


FAMILIES: tuple[Family, ...] = (
    Family(
        name="qwen3",
        matches=("qwen3",),
        sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.0),
    ),
    Family(
        name="qwen2.5-coder",
        matches=("qwen2.5-coder",),
        sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1),
    ),
    Family(
        name="qwen2.5",
        matches=("qwen2.5", "qwen2_5"),
        sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05),
    ),
    Family(
        name="qwen2",
        matches=("qwen2", "qwen1.5"),
        sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05),
    ),
    Family(
        name="qwen1",
        matches=("qwen-7b", "qwen-14b", "qwen-72b", "qwen-1_8b", "qwen-1.8b"),
        sampling=SamplingDefaults(temperature=1.0, top_p=0.8, top_k=0, repetition_penalty=1.1),
        stop_tokens=("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
        prompt="pairs",
        tools="react",
    ),
)

DEFAULT_FAMILY = Family(
    name="chatml",
    matches=(),
    sampling=SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05),
)


def family_of(model_name: str) -> Family:
    """Return the row of a model by its name (catalogue name, repository id or file name)."""
    name = model_name.lower()
    for family in FAMILIES:
        if any(fragment in name for fragment in family.matches):
            return family
    return DEFAULT_FAMILY


def family_named(name: str) -> Family:
    """Return the row called ``name``, which must be one of the table's."""
    return next(family for family in (*FAMILIES, DEFAULT_FAMILY) if family.name == name)
