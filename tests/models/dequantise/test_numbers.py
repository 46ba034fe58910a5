"""A GGUF made safetensors: the same model to transformers, the same numbers and tokens."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Kind
from gguf.quants import quantize
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from qwen_openai.models.checkpoint import tokenizer_file
from qwen_openai.models.dequantise import dequantised
from qwen_openai.models.dequantise.names import Place
from qwen_openai.models.dequantise.numbers import numbers_of, opened
from qwen_openai.models.dequantise.writing import parts_of, write_weights
from qwen_openai.models.gguf import read_gguf
from qwen_openai.models.shards import find_shards
from qwen_openai.models.store import ModelFiles
from qwen_openai.prompting.bpe import Bpe
from tests.models.conftest import Told
from tests.models.dequantise import as_gguf
from tests.models.dequantise.made import (
    Tensors,
    config_of,
    files_of,
    numbers_of_made,
    wide,
)
from tests.models.tiny_gguf import TEMPLATE, Metadata, Tensor


def _logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.arange(0, 200, 7)[None]).logits
    return logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", list(as_gguf.MODEL_TYPES))
def test_transformers_has_the_same_model_again(
    architecture: str, tied: bool, tmp_path: Path, home: Path, told: Told
) -> None:
    model = as_gguf.tiny_of(architecture, tied=tied)
    tensors = as_gguf.tensors_of(model)
    assert ("output.weight" in tensors) != tied
    files = files_of(tmp_path, home, as_gguf.metadata_of(architecture), tensors)
    checkpoint = dequantised(files, home, told)
    assert (checkpoint.name, checkpoint.dtype, checkpoint.from_gguf) == ("tiny", "float32", True)
    assert checkpoint.context_length == 2048

    loaded: object = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, dtype=torch.float32, output_loading_info=True
    )
    assert isinstance(loaded, tuple)
    again, report = loaded
    assert not any(report.values())
    assert again.config.tie_word_embeddings is tied
    assert again.config.rope_parameters == model.config.rope_parameters
    assert torch.equal(_logits(again), _logits(model))


_OF_EACH_TYPE = [
    Kind.F32,
    Kind.F16,
    Kind.BF16,
    Kind.Q4_0,
    Kind.Q4_1,
    Kind.Q5_0,
    Kind.Q5_1,
    Kind.Q8_0,
    Kind.Q2_K,
    Kind.Q3_K,
    Kind.Q4_K,
    Kind.Q5_K,
    Kind.Q6_K,
    Kind.IQ2_XS,
    Kind.IQ3_S,
    Kind.IQ4_NL,
    Kind.IQ4_XS,
    Kind.MXFP4,
]


def _matrices(tensors: Tensors) -> list[str]:
    return [name for name, tensor in tensors.items() if len(tensor.shape) == 2]


@pytest.mark.parametrize("kind", _OF_EACH_TYPE, ids=lambda kind: kind.name)
def test_numbers_are_those_of_ggmls_own_package(
    kind: Kind, tmp_path: Path, home: Path, told: Told
) -> None:
    metadata, tensors = wide()
    for seed, name in enumerate(_matrices(tensors)):
        tensors[name] = as_gguf.noise(kind, tensors[name].shape[::-1], seed)
    checkpoint = dequantised(files_of(tmp_path, home, metadata, tensors), home, told)
    kept = {Kind.F32: "float32", Kind.BF16: "bfloat16"}.get(kind, "float16")
    assert checkpoint.dtype == kept
    assert config_of(checkpoint)["torch_dtype"] == ("float32" if kind is Kind.F32 else "bfloat16")
    found = numbers_of_made(checkpoint)
    assert len(found) == len(tensors)
    for ours, theirs in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
        ("model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias"),
        ("model.norm.weight", "output_norm.weight"),
    ):
        numbers = as_gguf.numbers_in(tensors[theirs])
        if kept == "float16" and numbers.ndim > 1:
            numbers = numbers.astype(np.float16).astype(np.float32)
        assert np.array_equal(found[ours], numbers)


def test_progress_is_told_in_bytes_of_what_is_written(
    tmp_path: Path, home: Path, told: Told
) -> None:
    checkpoint = dequantised(files_of(tmp_path, home, *wide()), home, told)
    assert told.labels == ["Dequantising tiny"]
    assert told.advances[0] == sorted(told.advances[0])
    assert told.advances[0][-1] == checkpoint.weight_bytes
    assert len(told.advances[0]) > 14  # the larger ones are told piece by piece
    assert not told.open
    assert not told.notes


def _with_head(copy: Kind, like: bool) -> tuple[Metadata, Tensors]:
    """A model in which the head is the embedding once more, in another quantisation, or not."""
    metadata, tensors = wide()
    shape = (as_gguf.VOCABULARY, 256)
    random = np.random.default_rng(1)
    matrix = random.standard_normal(shape, np.float32)
    other = matrix if like else random.standard_normal(shape, np.float32)
    for name, numbers, kind in (
        ("token_embd.weight", matrix, Kind.Q5_0),
        ("output.weight", other, copy),
    ):
        tensors[name] = Tensor(shape[::-1], kind, quantize(numbers, kind).tobytes())
    return metadata, tensors


@pytest.mark.parametrize(
    ("copy", "finer"),
    [(Kind.Q8_0, "output.weight"), (Kind.Q4_0, "token_embd.weight"), (Kind.Q5_0, "output.weight")],
)
def test_of_two_copies_of_one_matrix_the_finer_serves_both_ends(
    copy: Kind, finer: str, tmp_path: Path, home: Path, told: Told
) -> None:
    metadata, tensors = _with_head(copy, like=True)
    checkpoint = dequantised(files_of(tmp_path, home, metadata, tensors), home, told)
    assert config_of(checkpoint)["tie_word_embeddings"] is True
    found = numbers_of_made(checkpoint)
    assert "lm_head.weight" not in found
    assert np.array_equal(
        found["model.embed_tokens.weight"],
        as_gguf.numbers_in(tensors[finer]).astype(np.float16),
    )


def test_a_head_of_its_own_stays_one(tmp_path: Path, home: Path, told: Told) -> None:
    metadata, tensors = _with_head(Kind.Q8_0, like=False)
    checkpoint = dequantised(files_of(tmp_path, home, metadata, tensors), home, told)
    assert config_of(checkpoint)["tie_word_embeddings"] is False
    found = numbers_of_made(checkpoint)
    for ours, theirs in (
        ("lm_head.weight", "output.weight"),
        ("model.embed_tokens.weight", "token_embd.weight"),
    ):
        assert np.array_equal(found[ours], as_gguf.numbers_in(tensors[theirs]).astype(np.float16))


def test_the_tokenizer_is_the_one_read_out_of_the_gguf(
    files: ModelFiles, home: Path, told: Told
) -> None:
    checkpoint = dequantised(files, home, told)
    assert tokenizer_file(checkpoint).read_bytes() == files.tokenizer.read_bytes()
    ours = AutoTokenizer.from_pretrained(checkpoint.folder)
    bpe = Bpe(files.tokenizer)
    for text in ("hello world, 你好世界", "e\N{COMBINING ACUTE ACCENT}", "a\r\n  b 123"):
        assert ours.encode(text) == bpe.encode(text)
    # llama.cpp composes nothing, and gives other tokens to this.
    assert ours.encode("e\N{COMBINING ACUTE ACCENT}") == ours.encode("é")
    assert ours.chat_template == TEMPLATE
    assert (ours.eos_token, ours.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_ends_and_sampling_are_those_the_file_states(
    qwen2: PreTrainedModel, tmp_path: Path, home: Path, told: Told
) -> None:
    stated = {
        "general.sampling.temp": 0.7,
        "general.sampling.top_p": 0.8,
        "general.sampling.top_k": 20,
        "general.sampling.min_p": 0.0,
        "general.sampling.penalty_repeat": 1.05,
        "tokenizer.ggml.eot_token_id": 3,
    }
    metadata = {**as_gguf.metadata_of("qwen2"), **stated}
    files = files_of(tmp_path, home, metadata, as_gguf.tensors_of(qwen2))
    tokens = read_gguf(files.weights).strings("tokenizer.ggml.tokens")
    end, text_end = tokens.index("<|im_end|>"), tokens.index("<|endoftext|>")
    assert config_of(dequantised(files, home, told), "generation_config.json") == {
        "eos_token_id": [end, 3, text_end],
        "pad_token_id": text_end,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "repetition_penalty": 1.05,
    }


def test_a_file_that_states_no_sampling_gets_none(
    files: ModelFiles, home: Path, told: Told
) -> None:
    stated = config_of(dequantised(files, home, told), "generation_config.json")
    assert set(stated) == {"eos_token_id", "pad_token_id"}


def test_stretched_positions_are_transformers_own(
    qwen2: PreTrainedModel, tmp_path: Path, home: Path, told: Told
) -> None:
    metadata = as_gguf.metadata_of(
        "qwen2",
        rope__scaling__type="yarn",
        rope__scaling__factor=4.0,
        rope__scaling__original_context_length=512,
    )
    files = files_of(tmp_path, home, metadata, as_gguf.tensors_of(qwen2))
    model = AutoModelForCausalLM.from_pretrained(dequantised(files, home, told).folder)
    assert model.config.rope_parameters == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "rope_theta": 10_000.0,
    }


def test_more_than_a_file_of_weights_gets_an_index(tmp_path: Path, told: Told) -> None:
    metadata, tensors = wide()
    gguf = read_gguf(as_gguf.write(tmp_path / "m.gguf", metadata, tensors))
    numbers = numbers_of(gguf)
    parts = [
        part
        for name, each in numbers.items()
        for part in parts_of(each, Place(each.tensor.shape, name, each.tensor.shape))
    ]
    told.start(0, "")
    with opened(gguf.path) as source:
        hashes = write_weights(tmp_path, source, parts, told.advance, shard_bytes=10**6)
    shards = find_shards(tmp_path)
    assert len(shards.files) > 2
    assert hashes.keys() == {file.name for file in shards.files} | {"model.safetensors.index.json"}
    index = json.loads((tmp_path / "model.safetensors.index.json").read_bytes())
    assert (
        index["metadata"]["total_size"] == sum(part.size for part in parts) == told.advances[0][-1]
    )
    assert index["weight_map"].keys() == tensors.keys()
    for file in shards.files:
        with safe_open(str(file), "np") as shard:
            for name in shard.keys():  # noqa: SIM118  # no mapping
                assert index["weight_map"][name] == file.name
                assert shard.get_tensor(name).tobytes() == tensors[name].data
