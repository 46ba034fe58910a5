"""Every tensor of a Qwen2, no other, and each whole: whatever the sizes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from qwen_openai.models.qwen1.config import Shape
from qwen_openai.models.qwen1.mapping import fault, renaming
from qwen_openai.models.qwen1.weights import split
from tests.models.qwen1 import tiny_qwen1

_SHAPES = st.builds(
    lambda heads, width, **sizes: Shape(heads=heads, hidden=heads * width, **sizes),
    heads=st.integers(1, 4),
    width=st.sampled_from([2, 4, 8]),
    layers=st.integers(1, 3),
    inner=st.integers(1, 9),
    vocabulary=st.integers(1, 40),
    tied=st.booleans(),
)
_TINY = Shape(
    layers=tiny_qwen1.LAYERS,
    hidden=tiny_qwen1.HIDDEN,
    heads=tiny_qwen1.HEADS,
    inner=tiny_qwen1.INNER,
    vocabulary=tiny_qwen1.VOCABULARY,
    tied=False,
)


@settings(max_examples=25)
@given(shape=_SHAPES)
def test_the_targets_are_the_tensors_of_a_stock_qwen2(shape: Shape) -> None:
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    table = renaming(shape)
    assert {
        target: renamed.part_shape for renamed in table.values() for target in renamed.targets
    } == expected


@settings(max_examples=25)
@given(shape=_SHAPES, seed=st.integers(0, 2**32))
def test_parts_put_together_are_the_tensor(shape: Shape, seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    names: list[str] = []
    for renamed in renaming(shape).values():
        tensor = torch.rand(renamed.shape, generator=numbers)
        parts = split(tensor, renamed)
        names += parts
        assert list(parts) == list(renamed.targets)
        assert {tuple(part.shape) for part in parts.values()} == {renamed.part_shape}
        assert torch.equal(torch.cat(list(parts.values())), tensor)
        begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        assert all(begin <= part.data_ptr() < end for part in parts.values())
    assert len(set(names)) == len(names)


def test_the_tiny_model_has_no_fault() -> None:
    table = renaming(_TINY)
    found = list(tiny_qwen1.shapes().items())
    assert {name: renamed.shape for name, renamed in table.items()} == dict(found)
    assert fault(found, table, tied=False) is None
    computed = [
        ("transformer.h.1.attn.masked_bias", ()),
        ("transformer.h.0.attn.rotary_emb.inv_freq", (2,)),
        ("transformer.rotary_emb.inv_freq", (2,)),
    ]
    assert fault(found + computed, table, tied=False) is None
    assert fault(found, renaming(replace(_TINY, tied=True)), tied=True) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lm_head.weight": None}, "no tensor 'lm_head.weight'"),
        ({"transformer.h.1.attn.c_attn.bias": None}, "no tensor"),
        ({"transformer.h.2.ln_1.weight": (8,)}, "'transformer.h.2.ln_1.weight', which no"),
        ({"transformer.h.0.mlp.w1.bias": (6,)}, "which no Qwen-1"),
        ({"transformer.wte.weight": (8, 512)}, "is 8 × 512, not 512 × 8"),
        ({"transformer.ln_f.weight": ()}, "is a single number, not 8"),
    ],
)
def test_a_fault_is_named(change: dict[str, tuple[int, ...] | None], reason: str) -> None:
    found = {
        name: size for name, size in (tiny_qwen1.shapes() | change).items() if size is not None
    }
    said = fault(found.items(), renaming(_TINY), tied=False)
    assert said is not None
    assert reason in said


def test_a_tensor_twice() -> None:
    found = [*tiny_qwen1.shapes().items(), ("lm_head.weight", (512, 8))]
    assert fault(found, renaming(_TINY), tied=False) == "it has the tensor 'lm_head.weight' twice"
