"""Writes GGUF files: any metadata and tensors, or a whole tiny Qwen2 model that llama.cpp loads.

The tiny model has 256 byte tokens, a few merges and Qwen's control tokens; its weights are random
but always the same, so its answers are noise that repeats.
"""

import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Scalar = str | int | float | bool
Metadata = Mapping[str, Scalar | Sequence[str] | Sequence[int] | Sequence[float]]

ALIGNMENT = 32
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>")
USER_DEFINED_TOKENS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
WORDS = ("hello", "world", "system", "user", "assistant", " the", " a", "你好", "世界")
TEMPLATE = (
    "{%- if messages[0].role != 'system' %}"
    "{{- '<|im_start|>system\\nYou are tiny.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """``shape`` in GGUF's order (fastest first); ``kind`` is the ggml type; ``data`` its bytes."""

    shape: tuple[int, ...]
    kind: int
    data: bytes


def encode_gguf(
    metadata: Metadata, tensors: Mapping[str, Tensor] | None = None, *, version: int = 3
) -> bytes:
    """Return the bytes of a GGUF file. Integers are written as u32, or i32 in a list."""
    tensors = tensors or {}
    out = bytearray(b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata)))
    for key, value in metadata.items():
        out += _string(key) + _value(value)
    data = bytearray()
    for name, tensor in tensors.items():
        data += b"\0" * (-len(data) % ALIGNMENT)
        out += _string(name) + struct.pack("<I", len(tensor.shape))
        out += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        out += struct.pack("<IQ", tensor.kind, len(data))
        data += tensor.data
    out += b"\0" * (-len(out) % ALIGNMENT)
    return bytes(out + data)


def byte_alphabet() -> list[str]:
    """The letters of bytes 0 to 255 in a byte-level vocabulary, as GPT-2's encoder defines them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def tiny_vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Return tokens, their GGUF types, and merges."""
    alphabet = byte_alphabet()
    tokens, merges = list(alphabet), []
    for word in WORDS:
        letters = [alphabet[byte] for byte in word.encode()]
        joined = letters[0]
        for letter in letters[1:]:
            merge = f"{joined} {letter}"
            joined += letter
            if joined not in tokens:
                tokens.append(joined)
                merges.append(merge)
    kinds = [1] * len(tokens)
    tokens += [*CONTROL_TOKENS, *USER_DEFINED_TOKENS, "[PAD0]", "[PAD1]"]
    kinds += [3] * len(CONTROL_TOKENS) + [4] * len(USER_DEFINED_TOKENS) + [5, 5]
    return tokens, kinds, merges


def tiny_metadata(**changes: Scalar | Sequence[str] | Sequence[int] | None) -> Metadata:
    """Metadata of the tiny model. In ``changes`` a ``__`` in a name stands for a dot, and None
    leaves the key out."""
    tokens, kinds, merges = tiny_vocabulary()
    metadata: dict[str, Scalar | Sequence[str] | Sequence[int] | Sequence[float]] = {
        "general.architecture": "qwen2",
        "general.name": "Tiny Qwen",
        "general.basename": "Qwen2.5",
        "general.size_label": "Tiny",
        "general.license": "apache-2.0",
        "general.alignment": ALIGNMENT,
        "qwen2.block_count": 1,
        "qwen2.context_length": 2048,
        "qwen2.embedding_length": 32,
        "qwen2.feed_forward_length": 64,
        "qwen2.attention.head_count": 2,
        "qwen2.attention.head_count_kv": 1,
        "qwen2.attention.layer_norm_rms_epsilon": 1e-6,
        "qwen2.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del metadata[key]
        else:
            metadata[key] = value
    return metadata


def tiny_tensors() -> dict[str, Tensor]:
    """Random float32 weights that fit `tiny_metadata`."""
    width, kv, hidden, vocabulary = 32, 16, 64, len(tiny_vocabulary()[0])
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (width, vocabulary),
        "output_norm.weight": (width,),
        "blk.0.attn_norm.weight": (width,),
        "blk.0.attn_q.weight": (width, width),
        "blk.0.attn_q.bias": (width,),
        "blk.0.attn_k.weight": (width, kv),
        "blk.0.attn_k.bias": (kv,),
        "blk.0.attn_v.weight": (width, kv),
        "blk.0.attn_v.bias": (kv,),
        "blk.0.attn_output.weight": (width, width),
        "blk.0.ffn_norm.weight": (width,),
        "blk.0.ffn_gate.weight": (width, hidden),
        "blk.0.ffn_up.weight": (width, hidden),
        "blk.0.ffn_down.weight": (hidden, width),
    }
    noise = random.Random(0)
    tensors = {}
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        norm = name.endswith("norm.weight")
        numbers = array("f", (1.0 if norm else noise.gauss(0, 0.3) for _ in range(count)))
        tensors[name] = Tensor(shape, 0, numbers.tobytes())
    return tensors


def write_tiny_model(path: Path, **changes: Scalar | Sequence[str] | Sequence[int] | None) -> Path:
    """Write the tiny model to ``path`` and return it; ``changes`` as in `tiny_metadata`."""
    path.write_bytes(encode_gguf(tiny_metadata(**changes), tiny_tensors()))
    return path


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Scalar | Sequence[str] | Sequence[int] | Sequence[float]) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<I", 9) + _list(value)


def _list(values: Sequence[str] | Sequence[int] | Sequence[float]) -> bytes:
    if all(isinstance(value, str) for value in values):
        body = b"".join(_string(str(value)) for value in values)
        return struct.pack("<IQ", 8, len(values)) + body
    code, kind = ("i", 5) if all(isinstance(value, int) for value in values) else ("f", 6)
    return struct.pack(f"<IQ{len(values)}{code}", kind, len(values), *values)
