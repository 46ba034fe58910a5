"""The cache gives what transformers' own gives, and writes only what is new."""

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, Qwen2Config
from transformers.cache_utils import DynamicLayer

from qwen_openai.engines.qwen_chat.cache import Extent, GrowingLayer, new_cache
from qwen_openai.engines.torch_model.load import Loaded


def sizes(layer: GrowingLayer, steps: Iterable[int]) -> list[int]:
    """Append ``steps`` tokens each; return the sizes of the buffers that it took, in order."""
    made: list[int] = []
    place = None
    for step in steps:
        keys, _ = layer.update(*torch.zeros(2, 1, 1, step, 1).unbind())
        if keys.data_ptr() != place:
            place = keys.data_ptr()
            made.append(keys.untyped_storage().nbytes() // keys.element_size())
    return made


@pytest.mark.parametrize(
    ("prompt", "answer", "made"),
    [
        (8180, 12, [8192]),
        (8180, 1, [8181]),
        (8000, 256, [8256]),
        (7000, 1192, [7256, 8192]),
        (100, 8092, [356, 534, 801, 1201, 1801, 2701, 4051, 6076, 8192]),
        (1, 8191, [257, 385, 577, 865, 1297, 1945, 2917, 4375, 6562, 8192]),
    ],
)
@pytest.mark.parametrize("piece", [128, 512, 10_000])
def test_few_buffers_for_an_answer(prompt: int, answer: int, made: list[int], piece: int) -> None:
    """What is outgrown is of no use to a card: it is bounded, and none is for the prompt."""
    pieces = [min(piece, prompt - start) for start in range(0, prompt, piece)]
    assert sizes(GrowingLayer(Extent(prompt, answer)), [*pieces, *[1] * answer]) == made
    assert sum(made[:-1]) < 3 * made[-1]


def test_more_than_was_said_is_held_too() -> None:
    assert sizes(GrowingLayer(Extent(2, 3)), [2, 3, 4, 1]) == [5, 9, 10]


@given(
    steps=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    prompt=st.integers(1, 900),
    answer=st.integers(1, 900),
)
def test_as_transformers_own(steps: list[int], prompt: int, answer: int) -> None:
    ours: DynamicLayer = GrowingLayer(Extent(prompt, answer))
    [theirs] = DynamicCache(config=Qwen2Config(num_hidden_layers=1)).layers
    assert isinstance(theirs, DynamicLayer)
    for step in steps:
        keys, values = torch.randn(2, 1, 2, step, 4).unbind()
        assert ours.get_mask_sizes(step) == theirs.get_mask_sizes(step)
        for one, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(one, other)
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_a_token_is_written_without_copying_the_rest() -> None:
    layer = GrowingLayer(Extent(100, 1000))
    new = torch.zeros(1, 2, 1, 4)
    keys, _ = layer.update(new.expand(1, 2, 100, 4), new.expand(1, 2, 100, 4))
    place = keys.data_ptr()
    places = {layer.update(new, new)[0].data_ptr() for _ in range(256)}
    assert places == {place}
    assert layer.update(new, new)[0].data_ptr() != place


@pytest.mark.parametrize("sliding", [False, True])
def test_sliding_layers_keep_their_own(qwen1_loaded: Loaded, sliding: bool) -> None:
    config = qwen1_loaded.model.config
    kinds = list(config.layer_types)
    try:
        if sliding:
            config.layer_types = ["sliding_attention"] * len(kinds)
            config.sliding_window = 8
        layers = new_cache(qwen1_loaded.model, Extent(1, 1)).layers
    finally:
        config.layer_types = kinds
        config.sliding_window = None
    assert [type(layer) is GrowingLayer for layer in layers] == [not sliding] * len(kinds)
