"""Tokens equal to transformers' own `generate`, for each kind of attention that Qwens have."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from qwen_openai.core import Sampling
from qwen_openai.engines.qwen_chat.cache import Extent, GrowingLayer, new_cache
from qwen_openai.engines.qwen_chat.generation import TokenLoop
from qwen_openai.engines.torch_model.limits import Limits

ANSWER = 24
SHAPE = {
    "vocab_size": 90,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "initializer_range": 0.7,
    "bos_token_id": None,
    "eos_token_id": None,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


@dataclass(frozen=True, slots=True)
class Kind:
    """A tiny model; ``growing`` are its layers with a cache of ours."""

    type: str
    growing: int
    config: Mapping[str, object]


KINDS = {
    "all heads": Kind("qwen2", 3, {"num_key_value_heads": 4}),
    "shared heads": Kind("qwen2", 3, {}),
    "one for all": Kind("qwen3", 3, {"num_key_value_heads": 1}),
    "sliding": Kind(
        "qwen2", 1, {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
    ),
    "sliding Qwen3": Kind(
        "qwen3", 2, {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}
    ),
    "Qwen1.5 experts": Kind("qwen2_moe", 3, {**EXPERTS, "shared_expert_intermediate_size": 16}),
    "Qwen3 experts": Kind("qwen3_moe", 3, EXPERTS),
}


def model_of(kind: Kind) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = AutoConfig.for_model(kind.type, **{**SHAPE, **kind.config})
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # its own
    assert isinstance(model, PreTrainedModel)
    model.train(False)
    return model


@pytest.mark.parametrize("name", KINDS)
def test_the_tokens_of_generate(name: str) -> None:
    model = model_of(KINDS[name])
    layers = new_cache(model, Extent(1, 1)).layers
    assert sum(type(layer) is GrowingLayer for layer in layers) == KINDS[name].growing
    greedy = GenerationConfig.from_dict({"max_new_tokens": ANSWER, "do_sample": False})
    for size in (1, 7, 8, 9, 16, 33):
        prompt = [(7 * n * n + size) % 90 for n in range(size)]
        theirs = model.generate(  # type: ignore[operator]  # its types do not know its own mixin
            torch.tensor([prompt]),
            attention_mask=torch.ones((1, size), dtype=torch.long),
            generation_config=greedy,
        )[0, size:].tolist()
        assert len(set(theirs)) > 3
        for piece in (1, 8, 10, 512):
            loop = TokenLoop(model, None, piece)
            steps = loop.run(prompt, Sampling(temperature=0), Limits(ANSWER, frozenset()))
            assert [step.token for step in steps if step is not None] == theirs, (size, piece)
