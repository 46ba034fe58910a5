"""What the tests of dequantising share: a GGUF that was pulled, and what was made of it."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf.constants import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from safetensors import safe_open

from qwen_openai.models.checkpoint import Checkpoint
from qwen_openai.models.dequantise.numbers import PIECE
from qwen_openai.models.shards import find_shards
from qwen_openai.models.store import ModelFiles, PullOptions, pull
from tests.models.conftest import Told
from tests.models.dequantise import as_gguf
from tests.models.tiny_gguf import Metadata, Tensor

Tensors = dict[str, Tensor]


def files_of(
    tmp_path: Path, home: Path, metadata: Metadata, tensors: Mapping[str, Tensor]
) -> ModelFiles:
    path = as_gguf.write(tmp_path / "tiny.gguf", metadata, tensors)
    found = pull(str(path), home=home, options=PullOptions(), progress=Told())
    assert isinstance(found, ModelFiles)
    return found


def numbers_of_made(checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    for file in find_shards(checkpoint.folder).files:
        with safe_open(str(file), "pt") as opened_file:
            found |= {
                name: opened_file.get_tensor(name).float().numpy().copy()
                for name in opened_file.keys()  # noqa: SIM118  # no mapping
            }
    return found


def config_of(checkpoint: Checkpoint, name: str = "config.json") -> dict[str, object]:
    document = json.loads((checkpoint.folder / name).read_bytes())
    assert isinstance(document, dict)
    return document


def left_in(home: Path) -> list[str]:
    """What lies in the cache folder of a model that was not made."""
    places = (home / "dequantised", home / "partial")
    return [each.name for place in places if place.is_dir() for each in place.iterdir()]


def wide() -> tuple[Metadata, Tensors]:
    """A model whose rows are blocks of 256, and one whose matrices are more than a piece."""
    hidden, inner = 256, 1280
    metadata = as_gguf.metadata_of(
        "qwen2", block_count=1, embedding_length=hidden, feed_forward_length=inner
    )
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (as_gguf.VOCABULARY, hidden),
        "output_norm.weight": (hidden,),
        "blk.0.attn_norm.weight": (hidden,),
        "blk.0.ffn_norm.weight": (hidden,),
        "blk.0.attn_q.weight": (hidden, hidden),
        "blk.0.attn_q.bias": (hidden,),
        "blk.0.attn_k.weight": (hidden // 2, hidden),
        "blk.0.attn_k.bias": (hidden // 2,),
        "blk.0.attn_v.weight": (hidden // 2, hidden),
        "blk.0.attn_v.bias": (hidden // 2,),
        "blk.0.attn_output.weight": (hidden, hidden),
        "blk.0.ffn_gate.weight": (inner, hidden),
        "blk.0.ffn_up.weight": (inner, hidden),
        "blk.0.ffn_down.weight": (hidden, inner),
    }
    assert inner * hidden > PIECE
    return metadata, {
        name: as_gguf.noise(Kind.F32, shape, seed)
        for seed, (name, shape) in enumerate(shapes.items())
    }
