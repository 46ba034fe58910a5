"""Directories to models: each kind, each type of number, and none with weights missing."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen_openai import QwenChat
from qwen_openai.engines.torch_model.load import (
    DeviceMap,
    Dtype,
    Loaded,
    check_devices,
    load,
    resolve_dtype,
)
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import read_checkpoint
from qwen_openai.models.qwen1 import state_dict

LAYER = "model.layers.0.self_attn"


def test_a_qwen1_as_published(qwen1_loaded: Loaded, golden: Path) -> None:
    assert qwen1_loaded.checkpoint.raw
    assert type(qwen1_loaded.model).__name__ == "Qwen2ForCausalLM"
    assert qwen1_loaded.model.dtype == torch.float32
    assert not qwen1_loaded.model.training
    assert qwen1_loaded.long_context is not None
    assert qwen1_loaded.model.generation_config.top_p == 0.8
    own = state_dict(golden / "checkpoint")
    for name, parameter in qwen1_loaded.model.named_parameters():
        assert torch.equal(parameter, own[name].float())


def test_weights_on_disk_are_not_copied(golden: Path, qwen_home: Path) -> None:
    """In the type they have on disk, they are the file's own pages."""
    loaded = load(golden / "checkpoint", "cpu", torch.float16, qwen_home)
    query, key = (loaded.model.get_parameter(f"{LAYER}.{each}_proj.weight") for each in "qk")
    assert query.dtype == torch.float16
    # Published as one tensor: they are still parts of it.
    assert query.untyped_storage().data_ptr() == key.untyped_storage().data_ptr()


def test_without_long_contexts_nothing_is_hooked(golden: Path, qwen_home: Path) -> None:
    loaded = load(golden / "checkpoint", "cpu", "float32", qwen_home, beyond=False)
    assert loaded.long_context is None
    assert not any(each._forward_hooks for each in loaded.model.modules())


def test_converted(converted_folder: Path, qwen1_loaded: Loaded) -> None:
    loaded = load(converted_folder, None, "auto", None)
    assert not loaded.checkpoint.raw
    assert loaded.checkpoint.qwen1 == qwen1_loaded.checkpoint.qwen1
    assert loaded.long_context is not None
    ours, theirs = loaded.model.state_dict(), qwen1_loaded.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, torch.float32),
        ({"dtype": "auto"}, torch.float32),
        ({"dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": torch.float16}, torch.float16),
        ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
        ({"torch_dtype": "auto"}, torch.float32),
        ({"torch_dtype": None, "bf16": False}, torch.float32),
        ({"bf16": True}, torch.bfloat16),
        ({"fp16": True}, torch.float16),
        ({"fp32": True, "trust_remote_code": True}, torch.float32),
        (
            {
                "bf16": True,
                "revision": "v1.1.4",
                "code_revision": None,
                "resume_download": True,
                "force_download": False,
                "cache_dir": "elsewhere",
                "local_files_only": True,
                "token": None,
                "low_cpu_mem_usage": True,
                "use_flash_attn": True,
            },
            torch.bfloat16,
        ),
    ],
)
def test_types_of_number(
    qwen2_folder: Path, keywords: Mapping[str, Any], expected: torch.dtype
) -> None:
    assert QwenChat.from_pretrained(qwen2_folder, **keywords).dtype == expected


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"dtype": "int8"}, ValueError, "int8.*bfloat16"),
        ({"dtype": torch.int8}, ValueError, "int8"),
        ({"dtype": 16}, TypeError, "dtype"),
        ({"torch_dtype": 16}, TypeError, "torch_dtype"),
        ({"bf16": True, "fp16": True}, ValueError, "bfloat16, float16"),
        ({"dtype": "float32", "bf16": True}, ValueError, "float32, bfloat16"),
        ({"load_in_8bit": True}, TypeError, "load_in_8bit"),
        ({"revision": "v1.1.4", "quantization_config": {}}, TypeError, "quantization_config"),
    ],
)
def test_wrong_keywords_are_named(
    qwen2_folder: Path, keywords: Mapping[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        QwenChat.from_pretrained(qwen2_folder, **keywords)


@pytest.mark.parametrize(
    ("dtype", "device_map", "expected"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", None, torch.float32),
        ("auto", {"": "cpu"}, torch.float32),
        ("auto", {"model": 0, "lm_head": "cpu"}, torch.float16),
        ("auto", "cuda:0", torch.float16),
        ("auto", 0, torch.float16),
        ("auto", torch.device("cpu"), torch.float32),
        ("bf16", "cpu", torch.bfloat16),
        ("torch.float16", "cpu", torch.float16),
    ],
)
def test_the_type_by_the_device(
    golden: Path, dtype: Dtype, device_map: DeviceMap, expected: torch.dtype
) -> None:
    """The golden checkpoint is float16 on disk."""
    assert resolve_dtype(dtype, read_checkpoint(golden / "checkpoint"), device_map) == expected


def test_what_was_dequantised_into_float16_is_computed_in_bfloat16(golden: Path) -> None:
    """On a card: Qwen was trained in it, and goes beyond what float16 reaches."""
    kept = replace(read_checkpoint(golden / "checkpoint"), dtype="float16", from_gguf=True)
    assert resolve_dtype("auto", kept, "cuda") == torch.bfloat16
    assert resolve_dtype("float16", kept, "cuda") == torch.float16
    assert resolve_dtype("auto", kept, "cpu") == torch.float32
    assert resolve_dtype("auto", replace(kept, from_gguf=False), "cuda") == torch.float16


@pytest.mark.parametrize(
    ("device_map", "name"),
    [
        ("banana", "banana"),
        ("", ""),
        ("cuda:99", "cuda:99"),
        ("meta", "meta"),
        (99, "99"),
        (-1, "-1"),
        (torch.device("cuda:99"), "cuda:99"),
        ({"model": "cpu", "lm_head": "banana"}, "banana"),
    ],
)
def test_a_device_that_is_not_here(qwen2_folder: Path, device_map: DeviceMap, name: str) -> None:
    with pytest.raises(StartupError, match=f"no device '{name}' here") as caught:
        QwenChat.from_pretrained(qwen2_folder, device_map=device_map)
    assert '"auto" or "cpu"' in (caught.value.fix or "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a card")
@pytest.mark.parametrize("device_map", ["cuda", "cuda:0", 0])
def test_a_card_where_there_is_none(qwen2_folder: Path, device_map: DeviceMap) -> None:
    with pytest.raises(StartupError, match=r"no device '(cuda|cuda:0|0)' here"):
        QwenChat.from_pretrained(qwen2_folder, device_map=device_map)


@pytest.mark.parametrize("device_map", [None, "cpu", "cpu:0", "auto", {"": "cpu"}])
def test_devices_that_are_here(device_map: DeviceMap) -> None:
    check_devices(device_map)


@pytest.fixture
def folder(qwen2_folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(qwen2_folder, tmp_path / "damaged"))


@pytest.mark.parametrize("name", ["model.norm.weight", "lm_head.weight"])
def test_a_missing_weight_is_noticed(folder: Path, name: str) -> None:
    """transformers would make one up at random."""
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(StartupError, match=rf"not the whole model: 1 .* {name}"):
        QwenChat.from_pretrained(folder)


def test_a_weight_of_another_shape_is_noticed(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(17)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(StartupError, match=str(folder)):
        QwenChat.from_pretrained(folder)


def test_code_in_a_directory_is_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('run')")
    model = QwenChat.from_pretrained(folder, trust_remote_code=True)
    assert type(model.model).__name__ == "Qwen2ForCausalLM"


def test_what_is_no_directory_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="There is no directory"):
        QwenChat.from_pretrained(tmp_path / "none")
