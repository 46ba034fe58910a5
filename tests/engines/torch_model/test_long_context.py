"""What Qwen-1's rules need is on the device before the layers ask for it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qwen_openai.engines.qwen_chat.cache import Extent
from qwen_openai.engines.qwen_chat.generation import Answer
from qwen_openai.engines.torch_model.load import Loaded, load
from qwen_openai.engines.torch_model.long_context import Spread
from tests.engines.loaded import GoldenLogits


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts conversions to another device or type, by shape."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  # torch's own
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result = func(*args, **kwargs or {})
        if func.overloadpacket in (torch.ops.aten.to, torch.ops.aten._to_copy) and (
            result.dtype != args[0].dtype
        ):
            self.shapes.append(tuple(result.shape))
        return result


@pytest.fixture(scope="module")
def halved(golden: Path, qwen_home: Path) -> Loaded:
    """In bfloat16, so that the factors, which are float32, are copied on a CPU too."""
    return load(golden / "checkpoint", "cpu", "bfloat16", qwen_home)


def test_the_factors_are_copied_once_a_pass(
    halved: Loaded, golden_logits: Callable[[str], list[GoldenLogits]]
) -> None:
    ids = golden_logits("logits_past_seq_length")[0].ids
    assert len(halved.model.model.layers) > 1
    answer = Answer(halved.model, halved.long_context, Extent(len(ids), 2))
    with torch.inference_mode():
        answer.forward(ids)
        for token in (1, 2):
            with Copies() as copies:
                answer.forward([token])
            assert copies.shapes.count((1, 1)) == 1


def test_a_copy_for_each_device_and_type() -> None:
    values = torch.ones(3)
    spread = Spread(values)
    cpu, elsewhere = torch.device("cpu"), torch.device("meta")
    assert spread.at(cpu) is values
    assert spread.at(elsewhere).device == elsewhere
    assert spread.at(elsewhere) is spread.at(elsewhere)
    half = spread.at(cpu, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert spread.at(cpu, torch.bfloat16) is half
    assert spread.at(cpu) is values
