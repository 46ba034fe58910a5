"""Qwen-1's `config.json` and `generation_config.json` said in Qwen2's words. Pure.

What Qwen2 has no word for is refused here, in one sentence, before a byte of weights is read.

Source of both sides: the published config files, and transformers' Qwen2Config; the mapping was
proved on logits (the tests repeat that).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_openai.models.checkpoint import CONFIG_FILE, MARKER, QWEN1
from qwen_openai.models.document import Document
from qwen_openai.models.shards import stated_dtype

END_OF_TEXT, IM_START, IM_END = 151643, 151644, 151645

_MOST_WIDTH = 2**24
_MOST_TOKENS = 2**27


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Qwen-1 model: ``width`` is that of one head, ``inner`` of one MLP branch (the
    published ``intermediate_size`` counts both). ``tied``: one matrix embeds and predicts."""

    layers: int
    hidden: int
    heads: int
    width: int
    inner: int
    vocabulary: int
    tied: bool


def read_shape(config: Document) -> Shape:
    """Return the sizes. Raises StartupError when one is absent or cannot be, and for a variant
    that a Qwen2 cannot express."""
    hidden = config.whole("hidden_size", most=_MOST_WIDTH)
    heads = config.whole("num_attention_heads", most=hidden)
    both = config.whole("intermediate_size", most=_MOST_WIDTH)
    if hidden % heads or both % 2:
        config.refuse("its hidden_size is no multiple of its heads, or its intermediate_size odd")
    if not config.flag("no_bias", True):
        config.refuse("its layers have biases where a Qwen2 has none (no_bias is false)")
    if config.real("rotary_pct", 1.0) != 1.0 or not config.flag("scale_attn_weights", True):
        config.refuse("its attention differs from that of every published Qwen-1")
    return Shape(
        layers=config.whole("num_hidden_layers", most=4096),
        hidden=hidden,
        heads=heads,
        width=config.whole("kv_channels", hidden // heads, most=_MOST_WIDTH),
        inner=both // 2,
        vocabulary=config.whole("vocab_size", most=_MOST_WIDTH),
        tied=config.flag("tie_word_embeddings", False),
    )


def qwen2_config(raw: Mapping[str, object]) -> dict[str, object]:
    """Return the config.json of the converted directory, ours marked with a key of its own.

    ``max_position_embeddings`` is what the model was trained for, so that a stock loader, which
    knows none of Qwen-1's rules for more, goes no further. Raises StartupError, see `read_shape`.
    """
    config = Document(Path(CONFIG_FILE), raw)
    shape = read_shape(config)
    seq_length = config.whole("seq_length", most=_MOST_TOKENS)
    stated = config.whole("max_position_embeddings", seq_length, most=_MOST_TOKENS)
    ntk, logn = config.flag("use_dynamic_ntk", False), config.flag("use_logn_attn", False)
    theta = config.real("rotary_emb_base", 10_000.0)
    converted: dict[str, object] = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "hidden_act": "silu",
        "max_position_embeddings": seq_length,
        "initializer_range": config.real("initializer_range", 0.02),
        "rms_norm_eps": config.real("layer_norm_epsilon", 1e-6),
        "rope_theta": theta,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": shape.tied,
        "use_cache": True,
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": IM_END,
        "torch_dtype": stated_dtype(config),
        # The first that knows Qwen2; without it 4.57 warns of a fault that the tokenizer has not.
        "transformers_version": "4.37.0",
        MARKER: {
            "generation": QWEN1,
            "seq_length": seq_length,
            "use_dynamic_ntk": ntk,
            "use_logn_attn": logn,
            "max_context": max(stated, seq_length) if ntk and logn else seq_length,
        },
    }
    if shape.width * shape.heads != shape.hidden:
        converted["head_dim"] = shape.width
    return converted


def generation_config(raw: Mapping[str, object]) -> dict[str, object]:
    """Return the generation_config.json of the converted directory.

    The chat's three stop ids, and the published sampling where the file states it. A value of a
    type that cannot be is left out. ``max_window_size`` is kept for those who drop old turns by it.
    """
    defaults: dict[str, object] = {
        "eos_token_id": [END_OF_TEXT, IM_END, IM_START],
        "pad_token_id": END_OF_TEXT,
    }
    kept: dict[str, type | tuple[type, ...]] = {
        "do_sample": bool,
        "max_new_tokens": int,
        "max_window_size": int,
        "repetition_penalty": (int, float),
        "temperature": (int, float),
        "top_k": int,
        "top_p": (int, float),
        "chat_format": str,
    }
    for key, kind in kept.items():
        value = raw.get(key)
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            defaults[key] = value
    return defaults
