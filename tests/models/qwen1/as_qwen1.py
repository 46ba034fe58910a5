"""The embedded model's weights written as a Qwen-1 checkpoint, and plainly as a Qwen2 one.

    python -m tests.models.qwen1.as_qwen1 GGUF OUTDIR [--native DIR]

Both hold the same float16 numbers, dequantised out of the GGUF, so what Qwen-1's path answers can
be compared with what stock transformers answers. It shares no code with the conversion it tests.
Qwen-1 has no grouped queries: keys and values are repeated to full heads. Of the GGUF's two copies
of the embedding the finer one serves both ends.
"""

import argparse
import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.numpy import save_file

from qwen_openai.models.gguf import read_gguf
from qwen_openai.models.tokenizer_file import build_tokenizer
from qwen_openai.prompting.bpe import byte_letters

Array = NDArray[np.float16]

RANKS = 151_643
LAYERS, HIDDEN, HEADS, KV_HEADS, WIDTH, INNER = 24, 896, 14, 2, 64, 4864
SHARDS = 3

_CONFIG = {
    "architectures": ["QWenLMHeadModel"],
    "auto_map": {
        "AutoConfig": "configuration_qwen.QWenConfig",
        "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
    },
    "attn_dropout_prob": 0.0,
    "bf16": False,
    "emb_dropout_prob": 0.0,
    "fp16": True,
    "fp32": False,
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": 2 * INNER,
    "kv_channels": WIDTH,
    "layer_norm_epsilon": 1e-06,
    "max_position_embeddings": 8192,
    "model_type": "qwen",
    "no_bias": True,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "rotary_emb_base": 1_000_000,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "seq_length": 8192,
    "tie_word_embeddings": False,
    "tokenizer_class": "QWenTokenizer",
    "use_cache": True,
    "use_dynamic_ntk": True,
    "use_flash_attn": "auto",
    "use_logn_attn": True,
    "vocab_size": 151_936,
}
_GENERATION = {
    "chat_format": "chatml",
    "do_sample": True,
    "eos_token_id": 151643,
    "max_new_tokens": 512,
    "max_window_size": 24000,
    "pad_token_id": 151643,
    "repetition_penalty": 1.1,
    "top_k": 0,
    "top_p": 0.8,
}
_NATIVE_CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "max_position_embeddings": 32768,
    "model_type": "qwen2",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151_936,
}
_NATIVE_GENERATION = {
    "bos_token_id": 151643,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "repetition_penalty": 1.1,
}


@dataclass(frozen=True)
class Weights:
    """The GGUF's tensors by their names there, dequantised one at a time."""

    reader: GGUFReader

    def get(self, name: str) -> Array:
        tensor = next(each for each in self.reader.tensors if each.name == name)
        numbers: Array = dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        return numbers

    def part(self, layer: int, name: str) -> Array:
        return self.get(f"blk.{layer}.{name}")


def write_qwen1(gguf: Path, folder: Path) -> None:
    """Write the model in the layout of Qwen-7B-Chat's repository, without its Python code."""
    weights = Weights(GGUFReader(gguf))
    folder.mkdir(parents=True)
    places: dict[str, str] = {}
    each = LAYERS // SHARDS
    for number in range(SHARDS):
        name = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        tensors: dict[str, Array] = {}
        if number == 0:
            tensors["transformer.wte.weight"] = weights.get("output.weight")
        for layer in range(number * each, (number + 1) * each):
            tensors |= _qwen1_layer(weights, layer)
        if number == SHARDS - 1:
            tensors["transformer.ln_f.weight"] = weights.get("output_norm.weight")
            tensors["lm_head.weight"] = weights.get("output.weight")
        places |= dict.fromkeys(tensors, name)
        save_file(tensors, folder / name, metadata={"format": "pt"})
    _json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    _json(folder / "config.json", _CONFIG)
    _json(folder / "generation_config.json", _GENERATION)
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "QWenTokenizer"})
    (folder / "qwen.tiktoken").write_bytes(b"".join(_ranks(gguf)))


def write_native(gguf: Path, folder: Path) -> None:
    """Write the model in the layout of Qwen2.5's repositories: what plain transformers loads."""
    weights = Weights(GGUFReader(gguf))
    folder.mkdir(parents=True)
    tensors = {
        "model.embed_tokens.weight": weights.get("output.weight"),
        "model.norm.weight": weights.get("output_norm.weight"),
    }
    for layer in range(LAYERS):
        tensors |= _qwen2_layer(weights, layer)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    header = read_gguf(gguf)
    _json(folder / "config.json", _NATIVE_CONFIG)
    _json(folder / "generation_config.json", _NATIVE_GENERATION)
    _json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 32768,
            "chat_template": header.text("tokenizer.chat_template"),
        },
    )
    (folder / "tokenizer.json").write_bytes(build_tokenizer(header))


def _qwen1_layer(weights: Weights, layer: int) -> dict[str, Array]:
    def joined(kind: str) -> Array:
        query, key, value = (weights.part(layer, f"attn_{each}.{kind}") for each in "qkv")
        return np.concatenate([query, _repeated(key), _repeated(value)])

    return {
        f"transformer.h.{layer}.{name}": tensor
        for name, tensor in {
            "ln_1.weight": weights.part(layer, "attn_norm.weight"),
            "attn.c_attn.weight": joined("weight"),
            "attn.c_attn.bias": joined("bias"),
            "attn.c_proj.weight": weights.part(layer, "attn_output.weight"),
            "ln_2.weight": weights.part(layer, "ffn_norm.weight"),
            "mlp.w1.weight": weights.part(layer, "ffn_up.weight"),
            "mlp.w2.weight": weights.part(layer, "ffn_gate.weight"),
            "mlp.c_proj.weight": weights.part(layer, "ffn_down.weight"),
        }.items()
    }


def _repeated(grouped: Array) -> Array:
    """Give each query head its own copy of the key or value head that it shares."""
    heads = grouped.reshape(KV_HEADS, WIDTH, *grouped.shape[1:])
    return heads.repeat(HEADS // KV_HEADS, axis=0).reshape(HEADS * WIDTH, *grouped.shape[1:])


def _qwen2_layer(weights: Weights, layer: int) -> dict[str, Array]:
    names = {
        "input_layernorm.weight": "attn_norm.weight",
        "self_attn.o_proj.weight": "attn_output.weight",
        "post_attention_layernorm.weight": "ffn_norm.weight",
        "mlp.up_proj.weight": "ffn_up.weight",
        "mlp.gate_proj.weight": "ffn_gate.weight",
        "mlp.down_proj.weight": "ffn_down.weight",
    } | {
        f"self_attn.{each}_proj.{kind}": f"attn_{each}.{kind}"
        for each in "qkv"
        for kind in ("weight", "bias")
    }
    return {
        f"model.layers.{layer}.{name}": weights.part(layer, there) for name, there in names.items()
    }


def _ranks(gguf: Path) -> Iterator[bytes]:
    """The lines of `qwen.tiktoken`: a token in base64, a blank, its rank."""
    byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    tokens = read_gguf(gguf).strings("tokenizer.ggml.tokens")[:RANKS]
    for rank, token in enumerate(tokens):
        raw = bytes(byte_of[letter] for letter in token)
        yield base64.b64encode(raw) + f" {rank}\n".encode()


def _json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a Qwen2 GGUF as a Qwen-1 checkpoint.")
    parser.add_argument("gguf", type=Path)
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--native", type=Path, help="also write it in the Qwen2 layout, here")
    arguments = parser.parse_args()
    began = time.monotonic()
    write_qwen1(arguments.gguf, arguments.outdir)
    if arguments.native is not None:
        write_native(arguments.gguf, arguments.native)
    print(f"{arguments.outdir} is written ({time.monotonic() - began:.1f} s).")  # noqa: T201


if __name__ == "__main__":
    main()
