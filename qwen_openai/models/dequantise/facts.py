"""A GGUF's metadata said in transformers' words: config.json and the small files beside it. Pure.

What a stock Qwen of transformers has no word for is refused here, before a number is read. Knows
nothing of tensors but the shapes that stand in for a size the metadata leaves out.

Sources: ggml's docs/gguf.md for the keys; transformers' configs of Qwen2, Qwen3 and
their mixtures; llama.cpp's builders of the four for what both leave unsaid.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import FROM_GGUF, MARKER
from qwen_openai.models.document import Document
from qwen_openai.models.gguf import GGUF, unusable

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
ANOTHER_ENGINE = "Leave --engine out: llama.cpp runs the file as it is."

# By GGUF's name: transformers' model_type and class.
_ARCHITECTURES = {
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "qwen2moe": ("qwen2_moe", "Qwen2MoeForCausalLM"),
    "qwen3moe": ("qwen3_moe", "Qwen3MoeForCausalLM"),
}
_MOST_WIDTH = 2**24
_MOST_TOKENS = 2**27
_MOST_LAYERS = 4096
_MOST_EXPERTS = 4096
_END_OF_TEXT = "<|endoftext|>"
# GGUF's key, ours, and the most that it can be.
_SAMPLING = (
    ("temp", "temperature", 100.0),
    ("top_p", "top_p", 1.0),
    ("min_p", "min_p", 1.0),
    ("penalty_repeat", "repetition_penalty", 100.0),
)


@dataclass(frozen=True, slots=True)
class Experts:
    """Of a mixture: how many experts there are and how many a token uses, the ``inner`` width of
    one, and of the ``shared`` one that every token uses (0: there is none)."""

    count: int
    used: int
    inner: int
    shared: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The sizes of a model. ``generation`` is 2 or 3; ``width`` that of a head; ``inner`` that of
    the MLP, where there are no ``experts``."""

    architecture: str
    generation: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    width: int
    inner: int
    vocabulary: int
    experts: Experts | None


def read_facts(gguf: GGUF) -> Facts:
    """Return the sizes. Raises StartupError for another architecture, and when a size is absent or
    cannot be."""
    architecture = gguf.text("general.architecture") or "none"
    if architecture not in _ARCHITECTURES:
        raise StartupError(
            f"{gguf.path} is a model of the architecture {architecture[:60]!r}, and the engine"
            f" transformers takes GGUF files of {', '.join(_ARCHITECTURES)} alone.",
            fix=ANOTHER_ENGINE,
        )
    stated = _of_architecture(gguf, architecture)
    shapes = {each.name: each.shape for each in gguf.tensors}
    hidden = stated.whole("embedding_length", most=_MOST_WIDTH)
    heads = stated.whole("attention.head_count", most=hidden)
    width = stated.whole("attention.key_length", hidden // heads, most=_MOST_WIDTH)
    if hidden % heads and "attention.key_length" not in stated.values:
        stated.refuse("its embedding_length is no multiple of its attention.head_count")
    for key in ("attention.value_length", "rope.dimension_count"):
        if stated.whole(key, width) != width:
            stated.refuse(f"its {key} is not the width of a head", ANOTHER_ENGINE)
    embedding = shapes.get(EMBEDDING, ())
    if len(embedding) != 2:
        raise unusable(gguf.path, f"it has no matrix {EMBEDDING}")
    is_mixture = architecture.endswith("moe")
    return Facts(
        architecture=architecture,
        generation=int(architecture[4]),
        layers=stated.whole("block_count", most=_MOST_LAYERS),
        hidden=hidden,
        heads=heads,
        kv_heads=stated.whole("attention.head_count_kv", heads, most=heads),
        width=width,
        inner=stated.whole("feed_forward_length", 1 if is_mixture else None, most=_MOST_WIDTH),
        vocabulary=embedding[0],
        experts=_experts(stated, architecture, shapes) if is_mixture else None,
    )


def _of_architecture(gguf: GGUF, architecture: str) -> Document:
    front = f"{architecture}."
    return Document(
        gguf.path,
        {
            key.removeprefix(front): value
            for key, value in gguf.metadata.items()
            if key.startswith(front)
        },
    )


def _experts(stated: Document, architecture: str, shapes: dict[str, tuple[int, ...]]) -> Experts:
    def rows(name: str) -> int | None:
        """Files of 2024 state no widths."""
        shape = shapes.get(f"blk.0.{name}.weight", ())
        return shape[-2] if len(shape) > 1 else None

    count = stated.whole("expert_count", most=_MOST_EXPERTS)
    shared = 0
    if architecture == "qwen2moe":
        shared = stated.whole("expert_shared_feed_forward_length", rows("ffn_gate_shexp"))
    return Experts(
        count=count,
        used=stated.whole("expert_used_count", most=count),
        inner=stated.whole("expert_feed_forward_length", rows("ffn_gate_exps"), most=_MOST_WIDTH),
        shared=shared,
    )


def config(gguf: GGUF, facts: Facts, *, tied: bool, dtype: str) -> dict[str, object]:
    """Return config.json; ``dtype`` is what to compute in ("bfloat16", say). Raises StartupError
    when a fact is absent, cannot be, or has no word in transformers."""
    stated = _of_architecture(gguf, facts.architecture)
    model_type, name = _ARCHITECTURES[facts.architecture]
    document: dict[str, object] = {
        "architectures": [name],
        "model_type": model_type,
        "vocab_size": facts.vocabulary,
        "hidden_size": facts.hidden,
        "intermediate_size": facts.inner,
        "num_hidden_layers": facts.layers,
        "num_attention_heads": facts.heads,
        "num_key_value_heads": facts.kv_heads,
        "head_dim": facts.width,
        "hidden_act": "silu",
        "max_position_embeddings": stated.whole("context_length", most=_MOST_TOKENS),
        "rms_norm_eps": _decimal(stated.real("attention.layer_norm_rms_epsilon")),
        "rope_theta": _decimal(stated.real("rope.freq_base", 10_000.0)),
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": tied,
        "use_cache": True,
        "torch_dtype": dtype,
        MARKER: {"source": FROM_GGUF},
    }
    for key, kept in (("bos", "bos_token_id"), ("eos", "eos_token_id")):
        number = gguf.number(f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            document[kept] = number
    if (scaling := _scaling(stated)) is not None:
        document["rope_scaling"] = scaling
    return document | _mixture(stated, facts)


def _mixture(stated: Document, facts: Facts) -> dict[str, object]:
    experts = facts.experts
    if experts is None:
        return {}
    document: dict[str, object] = {
        "num_experts": experts.count,
        "num_experts_per_tok": experts.used,
        "moe_intermediate_size": experts.inner,
        "norm_topk_prob": stated.flag("expert_weights_norm", facts.generation == 3),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
    if experts.shared:
        document["shared_expert_intermediate_size"] = experts.shared
    return document


def _scaling(stated: Document) -> dict[str, object] | None:
    """How the positions are stretched, where they are."""
    kind = stated.text("rope.scaling.type") or "none"
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        stated.refuse(f"it stretches positions by {kind[:40]!r}", ANOTHER_ENGINE)
    scaling: dict[str, object] = {
        "rope_type": kind,
        "factor": _decimal(stated.real("rope.scaling.factor")),
    }
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = stated.whole(
            "rope.scaling.original_context_length", most=_MOST_TOKENS
        )
    return scaling


def generation_config(gguf: GGUF) -> dict[str, object]:
    """Return generation_config.json: where answers end, and what sampling the file itself states;
    for what it does not, a request's own and a program's defaults serve."""
    document: dict[str, object] = {"eos_token_id": list(dict.fromkeys(_ends(gguf)))}
    for key, kept in (("bos", "bos_token_id"), ("padding", "pad_token_id")):
        number = gguf.number(f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            document[kept] = number
    for key, kept, most in _SAMPLING:
        value = gguf.metadata.get(f"general.sampling.{key}")
        if isinstance(value, float) and 0 < value <= most:
            document[kept] = _decimal(value)
    top_k = gguf.metadata.get("general.sampling.top_k")
    if isinstance(top_k, int) and 0 < top_k <= _MOST_WIDTH:
        document["top_k"] = int(top_k)
    if "temperature" in document:
        document["do_sample"] = True
    return document


def _ends(gguf: GGUF) -> Iterator[int]:
    """The chat's end, the text's end; as Qwen publishes them, in this order."""
    for key in ("eos", "eot", "eom"):
        number = gguf.number(f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            yield number
    tokens = gguf.strings("tokenizer.ggml.tokens")
    if _END_OF_TEXT in tokens:
        yield tokens.index(_END_OF_TEXT)


def tokenizer_config(gguf: GGUF, template: str) -> dict[str, object]:
    """Return tokenizer_config.json. The class is the one that takes tokenizer.json as it stands, in
    every version."""
    tokens = gguf.strings("tokenizer.ggml.tokens")

    def named(key: str) -> str | None:
        number = gguf.number(f"tokenizer.ggml.{key}_token_id")
        return tokens[number] if number is not None and number < len(tokens) else None

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": named("eos"),
        "pad_token": named("padding"),
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": gguf.number(f"{gguf.text('general.architecture')}.context_length"),
        "chat_template": template,
    }


def _decimal(number: float) -> float:
    """A number as people wrote it: GGUF keeps 32 bits, in which 1e-06 is 9.999999974752427e-07."""
    return float(f"{number:.7g}")
