"""Qwen-1's `config.json` and `generation_config.json` said in Qwen2's words. Pure.

What Qwen2 has no word for is refused here, in one sentence, before a byte of weights is read.

Source of both sides: the published config files, and transformers' Qwen2Config; the mapping was
proved on logits (the tests repeat that).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType

from qwen_openai.models.checkpoint import CONFIG_FILE, MARKER, QWEN1
from qwen_openai.models.document import Document
from qwen_openai.models.shards import stated_dtype

END_OF_TEXT, IM_START, IM_END = 151643, 151644, 151645

_MOST_WIDTH = 2**24
_MOST_TOKENS = 2**27

_KEPT: dict[str, type] = {"do_sample": bool, "chat_format": str}
# Type, least and most, as `QwenChat` takes them.
_RANGES: dict[str, tuple[type | UnionType, float, float]] = {
    "max_new_tokens": (int, 1, _MOST_TOKENS),
    "max_window_size": (int, 1, _MOST_TOKENS),
    "repetition_penalty": (int | float, 0.01, 100),
    "temperature": (int | float, 0, 100),
    "top_k": (int, 0, _MOST_WIDTH),
    "top_p": (int | float, 0, 1),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Qwen-1 model: ``inner`` is that of one MLP branch (the published
    ``intermediate_size`` counts both). ``tied``: one matrix embeds and predicts."""

    layers: int
    hidden: int
    heads: int
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
    # Its own code adds the heads up to hidden_size again, and fails where they do not.
    if config.whole("kv_channels", hidden // heads) * heads != hidden:
        config.refuse("its kv_channels times its heads are not its hidden_size")
    if not config.flag("no_bias", True):
        config.refuse("its layers have biases where a Qwen2 has none (no_bias is false)")
    if config.real("rotary_pct", 1.0) != 1.0 or not config.flag("scale_attn_weights", True):
        config.refuse("its attention differs from that of every published Qwen-1")
    return Shape(
        layers=config.whole("num_hidden_layers", most=4096),
        hidden=hidden,
        heads=heads,
        inner=both // 2,
        vocabulary=config.whole("vocab_size", most=_MOST_WIDTH),
        tied=config.flag("tie_word_embeddings", False),
    )


def qwen2_config(raw: Mapping[str, object], path: Path = Path(CONFIG_FILE)) -> dict[str, object]:
    """Return the config.json of the converted directory, ours marked with a key of its own.
    ``path`` is what a refusal calls the one that ``raw`` is out of.

    ``max_position_embeddings`` is what the model was trained for, so that a stock loader, which
    knows none of Qwen-1's rules for more, goes no further. Raises StartupError, see `read_shape`.
    """
    config = Document(path, raw)
    shape = read_shape(config)
    seq_length = config.whole("seq_length", most=_MOST_TOKENS)
    stated = config.whole("max_position_embeddings", seq_length, most=_MOST_TOKENS)
    ntk, logn = config.flag("use_dynamic_ntk", False), config.flag("use_logn_attn", False)
    theta = config.real("rotary_emb_base", 10_000.0)
    return {
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


def generation_config(raw: Mapping[str, object]) -> dict[str, object]:
    """Return the generation_config.json of the converted directory.

    The chat's three stop ids, and the published sampling where the file states it. A value that
    cannot be, by its type or its size, is left out: a program's own default is better than an
    error at the first request. A temperature of 0, which stock transformers refuses, is said as
    greedy decoding. ``max_window_size`` is kept for those who drop old turns by it.
    """
    defaults: dict[str, object] = {
        "eos_token_id": [END_OF_TEXT, IM_END, IM_START],
        "pad_token_id": END_OF_TEXT,
    }
    defaults |= {key: raw[key] for key, kind in _KEPT.items() if isinstance(raw.get(key), kind)}
    defaults |= {
        key: value
        for key, (kind, least, most) in _RANGES.items()
        if isinstance(value := raw.get(key), kind)
        and not isinstance(value, bool)
        and isinstance(value, int | float)
        and least <= value <= most
    }
    if defaults.get("temperature") == 0:
        del defaults["temperature"]
        defaults["do_sample"] = False
    return defaults
