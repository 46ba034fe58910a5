"""Linear layers laid out for a CPU compute what they computed before."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from qwen_openai.engines.transformers.packed import Kernels, PackedLinear, is_possible, pack

OWN: Kernels = torch.ops.mkldnn
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
KINDS: dict[str, dict[str, int]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 6},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 20},
    "qwen3_moe": {**EXPERTS, "head_dim": 6},
}

needs_kernels = pytest.mark.skipif(
    not is_possible(torch.float32, OWN), reason="this torch or processor has no oneDNN"
)


def tiny(kind: str = "qwen2", *, tied: bool = False) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE, **KINDS[kind], tie_word_embeddings=tied)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # its own
    model.train(False)
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        made: torch.Tensor = model(torch.arange(2, 14)[None]).logits
    return made


def linears(model: PreTrainedModel) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


@needs_kernels
@given(st.integers(1, 64), st.integers(1, 70), st.integers(1, 70), st.booleans(), st.integers(0))
def test_it_multiplies_as_before(
    rows: int, inputs: int, outputs: int, bias: bool, seed: int
) -> None:
    chance = torch.Generator().manual_seed(seed % 2**32)
    linear = nn.Linear(inputs, outputs, bias=bias)
    for parameter in linear.parameters():
        parameter.data.normal_(generator=chance)
    given = torch.randn(2, rows, inputs, generator=chance)
    with torch.inference_mode():
        made = PackedLinear(linear, OWN)(given)
        torch.testing.assert_close(made, linear(given), rtol=1e-5, atol=1e-4)
        # Rows that do not lie one behind the other.
        across = given.transpose(0, 1)
        torch.testing.assert_close(
            PackedLinear(linear, OWN)(across), linear(across), rtol=1e-5, atol=1e-4
        )


@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_says_the_same(kind: str) -> None:
    model = tiny(kind)
    before, were = logits(model), len(linears(model))
    assert pack(model) == were > 0
    assert not linears(model)
    assert model.dtype == torch.float32
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_an_embedding_keeps_what_it_shares_with_the_output() -> None:
    model = tiny(tied=True)
    before = logits(model)
    embedding = model.get_input_embeddings().weight
    assert pack(model) == 2 * 7 + 1
    assert model.get_input_embeddings().weight is embedding
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_what_was_laid_out_is_freed() -> None:
    model = tiny()
    kept = [weakref.ref(linear.weight) for linear in linears(model)]
    pack(model)
    gc.collect()
    assert [each() for each in kept] == [None] * len(kept)


@needs_kernels
def test_what_is_hooked_stays() -> None:
    model = tiny()
    first, second, third = linears(model)[:3]
    first.register_forward_hook(lambda module, given, made: made + 1)
    second.register_forward_pre_hook(lambda module, given: None)
    third._hf_hook = object()  # type: ignore[assignment]  # as accelerate leaves it
    before = logits(model)
    assert pack(model) == 2 * 7 + 1 - 3
    assert linears(model) == [first, second, third]
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_a_layer_of_another_kind_stays() -> None:
    class Own(nn.Linear):
        """Computes something else, for all that is known here."""

    model = tiny()
    model.set_submodule("lm_head", Own(24, 97))
    assert pack(model) == 2 * 7
    assert isinstance(model.get_submodule("lm_head"), Own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_type_of_number_is_laid_out_or_left(dtype: torch.dtype) -> None:
    model = tiny()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    before = logits(model).float()
    count = pack(model)
    assert count == (15 if is_possible(dtype, OWN) else 0)
    torch.testing.assert_close(logits(model).float(), before, rtol=0.05, atol=0.02)


class Gone:
    """A torch that has neither kernel."""

    def __getattr__(self, name: str) -> None:
        raise AttributeError(f"'_OpNamespace' 'mkldnn' object has no attribute {name!r}")


class Other:
    """A torch whose kernels do ``what`` instead."""

    def __init__(self, what: Callable[[], torch.Tensor]) -> None:
        self._what = what

    def _reorder_linear_weight(self, weight: torch.Tensor, rows: int) -> torch.Tensor:
        return weight

    def _linear_pointwise(self, *args: object) -> torch.Tensor:
        return self._what()


def unfit() -> torch.Tensor:
    raise RuntimeError("bf16 path needs the cpu support avx_ne_convert or avx512bw")


def called_otherwise() -> torch.Tensor:
    raise TypeError("_linear_pointwise() is missing value for argument 'algorithm'")


def wrong() -> torch.Tensor:
    return torch.zeros(3, 19)


@pytest.mark.parametrize(
    "kernels",
    [Gone(), Other(unfit), Other(called_otherwise), Other(wrong)],
    ids=["gone", "unfit", "called otherwise", "wrong"],
)
def test_without_the_kernels_a_model_stays_as_it_is(kernels: Kernels) -> None:
    model = tiny()
    before = logits(model)
    assert pack(model, kernels) == 0
    assert len(linears(model)) == 15
    assert torch.equal(logits(model), before)
