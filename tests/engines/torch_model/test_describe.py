"""What engines on torch say of a checkpoint, and which tokens end an answer of its generation."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from qwen_openai.core import Thinking, ToolSyntax
from qwen_openai.engines.base import EngineInfo
from qwen_openai.engines.torch_model.describe import described, dtype_name, family_ends
from qwen_openai.models.checkpoint import Checkpoint, Qwen1Facts

_NATIVE = Checkpoint(
    name="Qwen/Qwen3-0.6B",
    folder=Path(),
    raw=False,
    qwen1=None,
    context_length=512,
    kv_values_per_token=64,
    weight_bytes=1000,
    dtype="float32",
)
_QWEN1 = replace(
    _NATIVE,
    name="mine",
    raw=True,
    qwen1=Qwen1Facts(seq_length=512, use_dynamic_ntk=True, use_logn_attn=True),
)
_INFO = EngineInfo("e", "m", "CPU", 512, 4, facts=(("fits", "much"),))


@dataclass(frozen=True)
class Able:
    tools: ToolSyntax | None = "hermes"
    thinking: Thinking = "switched"
    fills_in: bool = True


class Known:
    """A vocabulary that has some tokens."""

    def __init__(self, **ids: int) -> None:
        self._ids = {f"<|{name}|>": number for name, number in ids.items()}

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)


def test_a_directory_is_described() -> None:
    info = described(_INFO, _NATIVE, Able(), torch.bfloat16)
    assert info.facts == (("computes in", "bfloat16"), ("fits", "much"))
    assert (info.family, info.tools, info.thinking, info.fills_in) == (
        "",
        "hermes",
        "switched",
        True,
    )
    assert (info.context, info.slots, info.engine) == (512, 4, "e")


def test_a_qwen_1_says_so() -> None:
    info = described(_INFO, _QWEN1, Able(tools="react"), "float32")
    assert info.facts[-1] == ("layout", "Qwen-1, converted while loading")
    assert info.family == "qwen1"


def test_the_names_of_numbers() -> None:
    assert [dtype_name(dtype) for dtype in (torch.float16, "float32")] == ["float16", "float32"]


def test_ends_are_the_familys_tokens_that_the_model_has() -> None:
    known = Known(im_end=1, endoftext=2, im_start=3, other=4)
    assert family_ends(_NATIVE, known) <= {1, 2, 3}
    assert 1 in family_ends(_NATIVE, known)
    assert family_ends(_QWEN1, known) == {1, 2, 3}
    assert family_ends(_QWEN1, Known(im_end=1)) == {1}
