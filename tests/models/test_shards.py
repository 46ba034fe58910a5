"""Weight files and their headers, sound and hostile."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.errors import StartupError
from qwen_openai.models.document import Document
from qwen_openai.models.shards import Stored, find_shards, read_header, size_and_dtype
from tests.models.qwen1 import tiny_qwen1


def _file(folder: Path, header: object, data: bytes = b"") -> Path:
    start = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(start).to_bytes(8, "little") + start + data)
    return path


def test_a_header_is_read(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [4, 8]},
        "a": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]},
    }
    path = _file(tmp_path, header, bytes(8))
    start = path.stat().st_size - 8
    assert read_header(path) == {
        "b": Stored("F32", (), start + 4, start + 8),
        "a": Stored("BF16", (2, 1), start, start + 4),
    }


def _entry(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4], **changes}}


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        [],
        {"a": 7},
        _entry(dtype="F13"),
        _entry(dtype=["F16"]),
        _entry(shape="2"),
        _entry(shape=[-2]),
        _entry(shape=[True]),
        _entry(shape=[2.0]),
        _entry(shape=[1] * 100),
        _entry(shape=[3]),
        _entry(data_offsets=[0]),
        _entry(data_offsets=[4, 0]),
        _entry(data_offsets=[4, 8]),
        _entry(data_offsets=[0, 400], shape=[200]),
        {**_entry(), "b": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}},
        {},
    ],
)
def test_a_header_that_lies(tmp_path: Path, header: object) -> None:
    path = _file(tmp_path, header, bytes(4))
    with pytest.raises(StartupError, match="is damaged"):
        read_header(path)


@given(st.binary(max_size=64))
def test_bytes_that_are_no_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(content)
    with pytest.raises(StartupError):
        read_header(path)


def test_a_file_cut_off_is_refused(tmp_path: Path) -> None:
    whole = tiny_qwen1.safetensors(tiny_qwen1.tensors())
    path = tmp_path / "model.safetensors"
    for length in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StartupError):
            read_header(path)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({}, "no weight_map"),
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": []}, "no weight_map"),
        ({"weight_map": {"a": "../outside.safetensors"}}, "no plain file name"),
        ({"weight_map": {"a": "/etc/passwd"}}, "no plain file name"),
        ({"weight_map": {"a": ".."}}, "no plain file name"),
        ({"weight_map": {"a": 7}}, "no plain file name"),
        ({"weight_map": {str(n): f"{n}.safetensors" for n in range(9)}}, "9 of them .* 5 more"),
    ],
)
def test_an_index_that_cannot_be(tmp_path: Path, index: object, reason: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(StartupError, match=reason):
        find_shards(tmp_path)


def test_weights_of_another_type(tmp_path: Path) -> None:
    content = tiny_qwen1.tensors("I8")
    (tmp_path / "model.safetensors").write_bytes(tiny_qwen1.safetensors(content))
    with pytest.raises(StartupError, match="of the type I8"):
        size_and_dtype(find_shards(tmp_path), Document(tmp_path / "config.json", {}))


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({}, "bfloat16"),
        ({"fp16": True}, "float16"),
        ({"torch_dtype": "float32", "bf16": True}, "float32"),
        ({"torch_dtype": "auto", "fp32": True}, "float32"),
    ],
)
def test_what_a_config_says_of_pickles(
    tmp_path: Path, config: dict[str, object], dtype: str
) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(10))
    document = Document(tmp_path / "config.json", config)
    assert size_and_dtype(find_shards(tmp_path), document) == (10, dtype)
