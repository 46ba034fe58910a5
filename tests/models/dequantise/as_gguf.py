"""Models of transformers written as GGUF files, by rules of their own: what the making of
safetensors out of GGUF is tested with. It shares no table with it.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.models.tiny_gguf import Metadata, Tensor, encode_gguf, tiny_metadata, tiny_vocabulary

HIDDEN, HEADS, KV_HEADS, LAYERS, INNER = 32, 4, 2, 2, 64
EXPERTS, USED, EXPERT_INNER, SHARED_INNER = 4, 2, 32, 64
VOCABULARY = len(tiny_vocabulary()[0]) + 3  # embeddings are padded in published models too

MODEL_TYPES = {
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
}
_RULES = (
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("model.layers.", "blk."),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate.", "ffn_gate_inp."),
)


def tiny_of(architecture: str, *, tied: bool = False) -> PreTrainedModel:
    """A random model of transformers, always the same, whose tokenizer is that of `tiny_gguf`."""
    config = AutoConfig.for_model(
        MODEL_TYPES[architecture],
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HIDDEN // HEADS if architecture.startswith("qwen2") else 16,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        initializer_range=0.5,
        num_experts=EXPERTS,
        num_experts_per_tok=USED,
        moe_intermediate_size=EXPERT_INNER,
        shared_expert_intermediate_size=SHARED_INNER,
        norm_topk_prob=architecture == "qwen3moe",
        rms_norm_eps=1e-6,
        rope_theta=10_000.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # its own
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "bias")):
                torch.nn.init.normal_(parameter, 1.0, 0.3)
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it bare
    return model


def metadata_of(architecture: str, **changes: object) -> Metadata:
    """Metadata of `tiny_of`; ``changes`` are keys of the architecture, with ``__`` for a dot and
    None for a key to be left out."""
    front = f"{architecture}."
    kept = {key: value for key, value in tiny_metadata().items() if not key.startswith("qwen2.")}
    sizes: dict[str, object] = {
        "block_count": LAYERS,
        "context_length": 2048,
        "embedding_length": HIDDEN,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 10000.0,
    }
    if architecture.startswith("qwen3"):
        sizes |= {"attention.key_length": 16, "attention.value_length": 16}
    if architecture.endswith("moe"):
        sizes |= {"expert_count": EXPERTS, "expert_used_count": USED}
    if architecture == "qwen3moe":
        sizes |= {"expert_feed_forward_length": EXPERT_INNER}
    sizes |= {name.replace("__", "."): value for name, value in changes.items()}
    stated = {front + key: value for key, value in sizes.items() if value is not None}
    return kept | {"general.architecture": architecture} | stated  # type: ignore[return-value]  # of those types


def tensors_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights in float32, named as llama.cpp names them."""
    tensors: dict[str, Tensor] = {}
    tied = model.config.tie_word_embeddings
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        for rule in _RULES:
            name = name.replace(*rule)
        for there, part in _parts(name, weight.numpy()).items():
            tensors[there] = Tensor(part.shape[::-1], 0, np.ascontiguousarray(part).tobytes())
    return tensors


def _parts(name: str, weight: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    front, _, kind = name.partition(".mlp.experts.")
    if kind == "gate_up_proj":
        gate, up = np.split(weight, 2, axis=1)
        return {f"{front}.ffn_gate_exps.weight": gate, f"{front}.ffn_up_exps.weight": up}
    if kind == "down_proj":
        return {f"{front}.ffn_down_exps.weight": weight}
    # llama.cpp keeps the matrix of one row as a vector.
    return {name: weight[0] if "inp_shexp" in name else weight}


def write(path: Path, metadata: Metadata, tensors: Mapping[str, Tensor]) -> Path:
    path.write_bytes(encode_gguf(metadata, tensors))
    return path


def noise(kind: GGMLQuantizationType, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Any numbers of a type, all of them finite in float16; ``shape`` is row-major."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    count = int(np.prod(shape)) // block * block_bytes
    raw = np.random.default_rng(seed).integers(0, 256, count, np.uint8)
    # No scale has an exponent above that of 1, nor a float32 one that is not a number.
    return Tensor(shape[::-1], kind, (raw & 0x3F).tobytes())


def numbers_in(tensor: Tensor) -> NDArray[np.float32]:
    """What the package of ggml's authors makes of a whole tensor, row by row."""
    kind = GGMLQuantizationType(tensor.kind)
    rows = np.frombuffer(tensor.data, np.uint8).reshape(*tensor.shape[:0:-1], -1)
    numbers: NDArray[np.float32] = dequantize(rows, kind)
    return numbers.reshape(tensor.shape[::-1]).astype(np.float32)
