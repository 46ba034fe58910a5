"""Writes whole directories of tiny random models in today's layout: Qwen2 and Qwen3.

The vocabulary is that of the tiny GGUF model; the weights are random but always the same.
"""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, Qwen2ForCausalLM, Qwen3ForCausalLM

from qwen_openai.models.describe import describe
from tests.models.tiny_gguf import TEMPLATE, write_tiny_model

MODELS: dict[str, type[Qwen2ForCausalLM] | type[Qwen3ForCausalLM]] = {
    "qwen2": Qwen2ForCausalLM,
    "qwen3": Qwen3ForCausalLM,
}
SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "initializer_range": 0.7,
}


def write_native(folder: Path, kind: str) -> Path:
    """Write a model of ``kind`` ("qwen2" or "qwen3") into ``folder``; return the folder."""
    describe(write_tiny_model(folder / "tiny.gguf"), folder)
    (folder / "tiny.gguf").unlink()
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    size = max(ids.values()) + 5  # embeddings are padded in published models too
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = AutoConfig.for_model(kind, vocab_size=size, head_dim=4, **SHAPE)
        model = MODELS[kind]._from_config(config)  # type: ignore[no-untyped-call]  # its own
    model.save_pretrained(folder)
    write(folder / "tokenizer_config.json", {"chat_template": TEMPLATE})
    write(
        folder / "generation_config.json",
        {
            "do_sample": True,
            "temperature": 0.7,
            "top_p": 0.8,
            "top_k": 20,
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        },
    )
    return folder


def write(file: Path, values: dict[str, object]) -> None:
    file.write_text(json.dumps(values), "utf-8")
