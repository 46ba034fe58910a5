"""Qwen-1's configs in Qwen2's words."""

from pathlib import Path

import pytest

from qwen_openai.errors import StartupError
from qwen_openai.models.qwen1 import generation_config, qwen2_config
from tests.models.qwen1 import tiny_qwen1

# What Qwen-7B-Chat's own repository states.
_CHAT_7B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "kv_channels": 128,
    "intermediate_size": 22016,
    "vocab_size": 151936,
    "layer_norm_epsilon": 1e-06,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "seq_length": 8192,
    "max_position_embeddings": 32768,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "no_bias": True,
    "bf16": True,
}


def test_qwen_7b_chat() -> None:
    config = qwen2_config(_CHAT_7B)
    assert config["intermediate_size"] == 11008
    assert config["num_key_value_heads"] == 32
    assert config["rope_theta"] == 10000.0
    assert config["max_position_embeddings"] == 8192
    assert config["torch_dtype"] == "bfloat16"
    assert config["tie_word_embeddings"] is False
    assert "head_dim" not in config
    assert "auto_map" not in config
    assert config["qwen_openai"] == {
        "generation": "qwen1",
        "seq_length": 8192,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "max_context": 32768,
    }


def test_a_model_without_the_rules_for_more_ends_where_it_was_trained() -> None:
    config = qwen2_config(_CHAT_7B | {"use_logn_attn": False})
    assert isinstance(config["qwen_openai"], dict)
    assert config["qwen_openai"]["max_context"] == 8192


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"no_bias": False}, "biases"),
        ({"rotary_pct": 0.25}, "attention differs"),
        ({"scale_attn_weights": False}, "attention differs"),
        ({"intermediate_size": 11007}, "odd"),
        ({"hidden_size": 4095}, "no multiple"),
        ({"kv_channels": 64}, "kv_channels times its heads"),
        ({"vocab_size": None}, "vocab_size is absent"),
        ({"rotary_emb_base": "1e6"}, "rotary_emb_base is '1e6'"),
        ({"rotary_emb_base": float("nan")}, "rotary_emb_base is nan"),
        ({"layer_norm_epsilon": -1}, "layer_norm_epsilon is -1"),
        ({"num_attention_heads": 5000}, "num_attention_heads"),
    ],
)
def test_what_a_qwen2_cannot_be(change: dict[str, object], reason: str) -> None:
    with pytest.raises(StartupError, match=reason):
        qwen2_config(_CHAT_7B | change)
    with pytest.raises(StartupError, match=r"^there/config\.json cannot be used: "):
        qwen2_config(_CHAT_7B | change, Path("there/config.json"))


def test_the_sampling_of_the_chat_is_kept() -> None:
    stated = {
        "chat_format": "chatml",
        "do_sample": True,
        "eos_token_id": 151643,
        "max_new_tokens": 512,
        "max_window_size": 24000,
        "pad_token_id": 151643,
        "repetition_penalty": 1.1,
        "top_k": 0,
        "top_p": 0.8,
        "transformers_version": "4.31.0",
    }
    assert generation_config(stated) == {
        "eos_token_id": [151643, 151645, 151644],
        "pad_token_id": 151643,
        "chat_format": "chatml",
        "do_sample": True,
        "max_new_tokens": 512,
        "max_window_size": 24000,
        "repetition_penalty": 1.1,
        "top_k": 0,
        "top_p": 0.8,
    }


@pytest.mark.parametrize(
    "stated",
    [
        {"top_p": "0.8", "top_k": True, "do_sample": 1, "temperature": None},
        {"max_new_tokens": -3, "repetition_penalty": -1, "top_p": 5},
        {"max_new_tokens": 0, "repetition_penalty": 0, "top_p": -0.1, "top_k": -1},
        {"temperature": -0.5, "max_window_size": 0, "top_k": 2.5, "chat_format": 7},
        {"temperature": 1e9, "repetition_penalty": 1e9, "max_new_tokens": 2**60},
    ],
)
def test_values_that_cannot_be_are_left_out(stated: dict[str, object]) -> None:
    assert generation_config(stated) == generation_config({})


def test_values_at_the_edge_are_kept() -> None:
    stated = {"top_p": 1, "top_k": 0, "max_new_tokens": 1, "temperature": 0.01}
    assert generation_config(stated) == generation_config({}) | stated
    assert generation_config({"top_p": 0})["top_p"] == 0


@pytest.mark.parametrize("zero", [0, 0.0])
def test_a_temperature_of_zero_is_greedy(zero: float) -> None:
    stated: dict[str, object] = {"do_sample": True, "temperature": zero}
    assert generation_config(stated) == generation_config({"do_sample": False})


def test_the_tiny_model_is_one() -> None:
    assert qwen2_config(tiny_qwen1.CONFIG)["num_hidden_layers"] == tiny_qwen1.LAYERS
