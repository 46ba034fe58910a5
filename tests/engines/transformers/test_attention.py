"""On a CPU each answer attends to its own keys only, and to them as transformers has it."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.utils import build_attention_mask
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from qwen_openai.engines.sampling import Picked
from qwen_openai.engines.transformers.attention import (
    NAME,
    attend,
    leave_own_keys,
    use_own_keys,
)
from qwen_openai.engines.transformers.runner import Runner, Shape
from qwen_openai.engines.transformers.track import Track
from tests.engines.transformers.small import (
    PAGE,
    failing,
    outcome,
    read,
    running,
    times,
    track,
)

# Prompts come in pieces.
SHAPE = Shape(slots=7, pages=96, page_size=PAGE, batch_tokens=25)
SIZES = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.5,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "grouped heads": ("qwen2", {}),
    "heads of their own": ("qwen2", {"num_key_value_heads": 4}),
    "a window in the second layer": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 1},
    ),
    "a window everywhere": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 0},
    ),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "experts of qwen2": ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 20}),
    "experts of qwen3": ("qwen3_moe", {**EXPERTS, "head_dim": 8}),
}


def tiny(kind: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    name, more = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = AutoConfig.for_model(name, **SIZES | more)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]  # its own
    model.train(False)
    return model


def name_of(model: PreTrainedModel) -> str:
    name: str = model.config._attn_implementation
    return name


@dataclass(frozen=True, slots=True)
class Part:
    """One answer of a step: so many ``new`` tokens behind ``past`` ones."""

    new: int
    past: int


class Kept(PagedAttentionCache):
    """A cache that hands out keys and values of the test's."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor, ends: Sequence[int]) -> None:
        self._kept, self._ends = (key, value), ends

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        kwargs: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert key_states.shape == value_states.shape
        assert layer_idx == 1
        kwargs["cu_seq_lens_k"] = torch.tensor(self._ends)
        return self._kept


class Layer(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.layer_idx, self.num_key_value_groups = 1, groups


@given(
    parts=st.lists(st.builds(Part, st.integers(0, 7), st.integers(0, 12)), min_size=1, max_size=5),
    sharing=st.integers(1, 3),
    groups=st.integers(1, 3),
    window=st.none() | st.integers(2, 9),
    seed=st.integers(0, 99),
)
def test_it_is_transformers_attention(
    parts: list[Part], sharing: int, groups: int, window: int | None, seed: int
) -> None:
    """Where some have no token at all, too."""
    chance = torch.Generator().manual_seed(seed)
    past = [part.past if window is None else min(part.past, window - 1) for part in parts]
    rows = [0, *accumulate(part.new for part in parts)]
    columns = [
        0,
        *accumulate(part.new and part.new + seen for part, seen in zip(parts, past, strict=True)),
    ]
    query = torch.randn(1, sharing * groups, rows[-1], 8, generator=chance)
    new = torch.randn(1, sharing, rows[-1], 8, generator=chance)
    key, value = torch.randn(2, 1, sharing, columns[-1], 8, generator=chance)
    mask = torch.full((1, 1, rows[-1], columns[-1]), torch.finfo(torch.float32).min)
    build_attention_mask(mask, rows, columns, window or 1)

    def given() -> dict[str, Any]:
        ends = torch.tensor(rows)
        return {"cache": Kept(key, value, columns), "cu_seq_lens_q": ends, "scaling": 0.3}

    made, _ = attend(Layer(groups), query, new, new, mask, **given())
    if rows[-1]:
        theirs, _ = sdpa_attention_forward(Layer(groups), query, new, new, mask, **given())
        torch.testing.assert_close(made, theirs)
    assert made.is_contiguous()


def test_rows_that_fill_a_step_up_are_nobodys() -> None:
    query, key = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 3, 4)
    mask = torch.zeros(1, 1, 5, 3)
    ends = torch.tensor([0, 3, 3])
    cache = Kept(key, key, [0, 3, 3])
    made, _ = attend(Layer(1), query, query, query, mask, cache=cache, cu_seq_lens_q=ends)
    assert bool(made[:, :3].all())
    assert not bool(made[:, 3:].any())


def prompts() -> list[list[int]]:
    """Of all lengths, and some with a common beginning."""
    chance = random.Random(7)
    head = [chance.randrange(97) for _ in range(3 * PAGE)]
    own = [[chance.randrange(97) for _ in range(count)] for count in (1, 2, 9, 37)]
    return [*own, *(head + tail for tail in own[:3]), head]


async def told(runner: Runner, one: Track) -> list[Picked]:
    """What is told of an answer."""
    runner.submit(one)
    made = [await one.next() for _ in range(one.limits.max_tokens)]
    runner.leave(one)
    return made


async def answers(model: PreTrainedModel, *, own: bool) -> list[list[Picked]]:
    """All prompts at once, and again those of which the cache knows a beginning."""
    made: list[list[Picked]] = []
    async with running(model, SHAPE) as runner:
        if not own:
            leave_own_keys(model)
        assert (name_of(model) == NAME) == own
        for wanted in (prompts(), prompts()[3:]):
            tracks = [track(model, prompt, 5, logprobs=20) for prompt in wanted]
            made += await asyncio.gather(*(told(runner, one) for one in tracks))
    return made


def numbers(made: list[list[Picked]]) -> list[list[dict[int, float]]]:
    return [[dict(picked.top) for picked in one] for one in made]


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_are_those_of_transformers_attention(kind: str) -> None:
    model = tiny(kind)
    theirs, ours = await answers(model, own=False), await answers(model, own=True)
    assert [[picked.token for picked in one] for one in ours] == [
        [picked.token for picked in one] for one in theirs
    ]
    for mine, other in zip(numbers(ours), numbers(theirs), strict=True):
        for row, beside in zip(mine, other, strict=True):
            shared = row.keys() & beside.keys()
            assert len(shared) >= 19, "two that are as likely may change places at the end"
            assert {n: row[n] for n in shared} == pytest.approx(
                {n: beside[n] for n in shared}, abs=1e-4
            )


async def test_it_computes_in_bfloat16() -> None:
    """Which rounds so much that only what is sure is the same."""
    model = tiny("grouped heads", torch.bfloat16)
    theirs, ours = await answers(model, own=False), await answers(model, own=True)
    for mine, other in zip(ours, theirs, strict=True):
        first, beside = mine[0], dict(other[0].top)
        assert first.logprob is not None
        assert first.logprob == pytest.approx(beside[first.token], abs=0.1)


async def test_a_model_has_its_attention_back() -> None:
    """And may be given another loop; meanwhile it still works by itself."""
    model = tiny("a window in the second layer")
    ids = torch.tensor([prompts()[3]])

    def alone() -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = model(ids).logits
        return logits

    before = alone()
    for _ in range(2):
        async with running(model, SHAPE):
            assert name_of(model) == NAME
            torch.testing.assert_close(alone(), before)
        assert name_of(model) == "sdpa"
    torch.testing.assert_close(alone(), before)


async def test_a_loop_that_starts_again_attends_so_too() -> None:
    model = tiny("grouped heads")
    prompt = prompts()[3]
    async with running(model, SHAPE) as runner:
        wanted = await read(runner, track(model, prompt, 8))
        with failing(model, times(1, lambda: RuntimeError("broken"))):
            failed = await outcome(runner, track(model, prompt, 8))
        assert isinstance(failed, Exception)
        assert await read(runner, track(model, prompt, 8)) == wanted
        assert name_of(model) == NAME


def test_another_attention_stays() -> None:
    model = tiny("grouped heads")
    model.set_attn_implementation("eager")
    use_own_keys(model)
    assert name_of(model) == "eager"
    leave_own_keys(model)
    assert name_of(model) == "eager"
    with torch.device("meta"):
        elsewhere = tiny("grouped heads")
    use_own_keys(elsewhere)
    assert name_of(elsewhere) == "sdpa"
