"""The cache gives what transformers' own gives, and writes only what is new."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, Qwen2Config
from transformers.cache_utils import DynamicLayer

from qwen_openai.engines.qwen_chat.cache import GrowingLayer, new_cache
from qwen_openai.engines.qwen_chat.load import Loaded


@given(steps=st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_as_transformers_own(steps: list[int]) -> None:
    ours: DynamicLayer = GrowingLayer()
    [theirs] = DynamicCache(config=Qwen2Config(num_hidden_layers=1)).layers
    assert isinstance(theirs, DynamicLayer)
    for step in steps:
        keys, values = torch.randn(2, 1, 2, step, 4).unbind()
        assert ours.get_mask_sizes(step) == theirs.get_mask_sizes(step)
        for one, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(one, other)
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_a_token_is_written_without_copying_the_rest() -> None:
    layer = GrowingLayer()
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
        layers = new_cache(qwen1_loaded.model).layers
    finally:
        config.layer_types = kinds
        config.sliding_window = None
    assert [type(layer) is GrowingLayer for layer in layers] == [not sliding] * len(kinds)
