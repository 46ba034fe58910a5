"""A Qwen-1 directory of a few kilobytes with random weights, as bytes by file name; no torch."""

import base64
import itertools
import json
import random
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import prod
from pathlib import Path

from qwen_openai.models import tiktoken_file

HIDDEN, HEADS, LAYERS, INNER, VOCABULARY = 8, 2, 2, 6, 512
MERGES = (b"ab", b"abc", b"  ")
RANKS = 256 + len(MERGES)  # of the vocabulary, where nothing else is said

CONFIG: dict[str, object] = {
    "architectures": ["QWenLMHeadModel"],
    "auto_map": {"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * INNER,
    "kv_channels": HIDDEN // HEADS,
    "layer_norm_epsilon": 1e-06,
    "max_position_embeddings": 128,
    "model_type": "qwen",
    "no_bias": True,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "seq_length": 32,
    "tie_word_embeddings": False,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "vocab_size": VOCABULARY,
}

Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]


def shapes(vocabulary: int = VOCABULARY) -> dict[str, tuple[int, ...]]:
    """The tensors of the model, in the order of its layers."""
    layer = {
        "ln_1.weight": (HIDDEN,),
        "attn.c_attn.weight": (3 * HIDDEN, HIDDEN),
        "attn.c_attn.bias": (3 * HIDDEN,),
        "attn.c_proj.weight": (HIDDEN, HIDDEN),
        "ln_2.weight": (HIDDEN,),
        "mlp.w1.weight": (INNER, HIDDEN),
        "mlp.w2.weight": (INNER, HIDDEN),
        "mlp.c_proj.weight": (HIDDEN, INNER),
    }
    return (
        {"transformer.wte.weight": (vocabulary, HIDDEN)}
        | {
            f"transformer.h.{number}.{name}": shape
            for number in range(LAYERS)
            for name, shape in layer.items()
        }
        | {"transformer.ln_f.weight": (HIDDEN,), "lm_head.weight": (vocabulary, HIDDEN)}
    )


def tensors(
    dtype: str = "BF16", vocabulary: int = VOCABULARY
) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Random bytes in each tensor: they need not be numbers of any use to be moved about."""
    size = {"BF16": 2, "F16": 2, "F32": 4, "I8": 1}[dtype]
    source = random.Random(1)
    return {
        name: (dtype, shape, source.randbytes(size * prod(shape)))
        for name, shape in shapes(vocabulary).items()
    }


def safetensors(content: Tensors) -> bytes:
    """Write a safetensors file by the format's own description."""
    header: dict[str, object] = {}
    at = 0
    for name, (dtype, shape, raw) in content.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    start = json.dumps(header).encode()
    return len(start).to_bytes(8, "little") + start + b"".join(raw for *_, raw in content.values())


@lru_cache
def published_size() -> bytes:
    """A vocabulary of as many tokens as Qwen-1's: all bytes, all pairs of them, and triples."""
    pairs = itertools.product(range(256), repeat=2)
    triples = itertools.product(range(256), repeat=3)
    longer = map(bytes, itertools.chain(pairs, triples))
    return tiktoken(itertools.islice(longer, tiktoken_file.RANKS - 256))


def whole(shards: int = 1) -> dict[str, bytes]:
    """The files of a directory whose vocabulary has the published size, as all of ours ask."""
    rows = 151_936
    made = files(tensors(vocabulary=rows), shards, {"vocab_size": rows})
    return made | {"qwen.tiktoken": published_size()}


def tiktoken(merges: Iterable[bytes] = MERGES) -> bytes:
    """A vocabulary of all bytes and a few longer tokens."""
    ranks = [*(bytes([byte]) for byte in range(256)), *merges]
    lines = (base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(ranks))
    return b"".join(lines)


def files(
    content: Tensors | None = None, shards: int = 1, config: Mapping[str, object] | None = None
) -> dict[str, bytes]:
    """The directory's files; ``config`` overrides its config.json, where None takes a key out."""
    content = tensors() if content is None else content
    stated = {
        key: value for key, value in (CONFIG | dict(config or {})).items() if value is not None
    }
    found = {
        "config.json": json.dumps(stated).encode(),
        "generation_config.json": b'{"chat_format": "chatml", "eos_token_id": 151643}',
        "qwen.tiktoken": tiktoken(),
        "LICENSE": b"Tongyi Qianwen LICENSE AGREEMENT",
        "NOTICE": b"Copyright",
    }
    if shards == 1:
        return found | {"model.safetensors": safetensors(content)}
    places: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(content.items())[number::shards])
        places |= dict.fromkeys(part, name)
        found[name] = safetensors(part)
    return found | {"model.safetensors.index.json": json.dumps({"weight_map": places}).encode()}


def write(folder: Path, content: Mapping[str, bytes]) -> Path:
    """Write files into a new folder and return it."""
    folder.mkdir(parents=True)
    for name, raw in content.items():
        (folder / name).write_bytes(raw)
    return folder
