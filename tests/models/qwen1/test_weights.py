"""Qwen-1's weights as Qwen2's: out of safetensors and out of PyTorch's own files, never run."""

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import read_checkpoint
from qwen_openai.models.qwen1 import qwen2_config, state_dict
from tests.models.qwen1 import tiny_qwen1
from tests.models.qwen1.conftest import Rows, worst_logit


def _bins(source: Path, folder: Path, count: int, **how: bool) -> Path:
    """Write a checkpoint's tensors as PyTorch files."""
    folder.mkdir()
    tensors = list(load_file(source / "model.safetensors").items())
    places: dict[str, str] = {}
    for number in range(count):
        name = f"pytorch_model-{number + 1:05}-of-{count:05}.bin"
        part = dict(tensors[number::count])
        places |= dict.fromkeys(part, name)
        torch.save(part, folder / name, **how)
    index = json.dumps({"weight_map": places})
    (folder / "pytorch_model.bin.index.json").write_text(index)
    for name in ("config.json", "qwen.tiktoken"):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_qwen1.write(tmp_path / "tiny", tiny_qwen1.files())


def test_stock_transformers_gives_the_golden_logits(raw: Path, rows: Rows) -> None:
    stated = json.loads((raw / "config.json").read_text())
    model = Qwen2ForCausalLM(Qwen2Config.from_dict(qwen2_config(stated)))
    model.load_state_dict(state_dict(raw))
    assert worst_logit(model, rows("logits.jsonl")) < 1e-4


@pytest.mark.parametrize("is_zip", [True, False])
def test_both_formats_hold_the_same(raw: Path, tmp_path: Path, is_zip: bool) -> None:
    bins = _bins(raw, tmp_path / "bins", 3, _use_new_zipfile_serialization=is_zip)
    one, other = state_dict(raw), state_dict(bins)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("format", ["safetensors", "bin"])
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see mappings")
def test_nothing_is_copied(tiny: Path, tmp_path: Path, format: str) -> None:
    folder = tiny if format == "safetensors" else _bins(tiny, tmp_path / "bins", 1)
    tensors = state_dict(folder)
    mapped = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith((".safetensors", ".bin"))
    ]
    for tensor in tensors.values():
        assert any(begin <= tensor.data_ptr() < end for begin, end in mapped)


class _Evil:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._path),)


def test_a_pickle_with_code_is_refused_and_not_run(tiny: Path, tmp_path: Path) -> None:
    (tiny / "model.safetensors").unlink()
    trap = tmp_path / "it-was-run"
    for write in (torch.save, _plain_pickle):
        write({"transformer.wte.weight": _Evil(trap)}, tiny / "pytorch_model.bin")
        with pytest.raises(StartupError, match="was not loaded") as caught:
            state_dict(tiny)
        assert "\n" not in caught.value.message
        assert not trap.exists()


def _plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.zeros(2)], "no table of tensors"),
        ({"a": 1}, "something else"),
        ({7: torch.zeros(2)}, "something else"),
        ({"lm_head.weight": torch.zeros(2, dtype=torch.int8)}, r"torch\.int8"),
        ({"a": torch.zeros(2).to_sparse()}, "not a plain one"),
        ({"a": torch.zeros(1).expand(2**40)}, "more numbers than there are"),
        ({"a": torch.zeros(2)}, "'a', which no Qwen-1"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_pickle_that_holds_something_else(tiny: Path, content: object, reason: str) -> None:
    (tiny / "model.safetensors").unlink()
    torch.save(content, tiny / "pytorch_model.bin")
    with pytest.raises(StartupError, match=reason):
        state_dict(tiny)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02K\x01.", bytes(1000)])
def test_a_file_that_is_no_pickle_of_weights(tiny: Path, content: bytes) -> None:
    (tiny / "model.safetensors").unlink()
    (tiny / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(StartupError, match=r"pytorch_model\.bin"):
        state_dict(tiny)


@pytest.mark.parametrize(
    ("name", "entry", "reason"),
    [
        ("transformer.ln_f.weight", None, "no tensor 'transformer.ln_f.weight'"),
        ("transformer.ln_f.weight", ("F16", (4, 2), bytes(16)), "is 4 × 2, not 8"),
        ("transformer.ln_f.bias", ("F16", (8,), bytes(16)), "'transformer.ln_f.bias', which no"),
        ("transformer.ln_f.weight", ("I8", (8,), bytes(8)), "of the type I8"),
    ],
)
def test_weights_that_are_not_those_of_the_config(
    tmp_path: Path, name: str, entry: tuple[str, tuple[int, ...], bytes] | None, reason: str
) -> None:
    tensors = tiny_qwen1.tensors()
    if entry is None:
        del tensors[name]
    else:
        tensors[name] = entry
    folder = tiny_qwen1.write(tmp_path / "model", tiny_qwen1.files(tensors))
    with pytest.raises(StartupError, match=reason):
        state_dict(folder)


def test_buffers_of_any_type_are_passed_over(tiny: Path, tmp_path: Path) -> None:
    """Old code saved its mask along, as truth values: more bytes of them than of weights."""
    mask = {
        f"transformer.h.{layer}.attn.bias": ("BOOL", (300, 300), bytes(90_000)) for layer in (0, 1)
    }
    files = tiny_qwen1.files({**mask, **tiny_qwen1.tensors()})
    folder = tiny_qwen1.write(tmp_path / "masked", files)
    found, plain = read_checkpoint(folder), read_checkpoint(tiny)
    assert (found.dtype, found.weight_bytes) == ("bfloat16", plain.weight_bytes)
    bins = _bins(folder, tmp_path / "bins", 1)
    wanted = state_dict(tiny)
    for masked in (folder, bins):
        got = state_dict(masked)
        assert got.keys() == wanted.keys()
        assert all(
            torch.equal(got[name].view(torch.int16), wanted[name].view(torch.int16))
            for name in wanted
        )


def test_without_torch_the_way_to_it_is_said(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(StartupError, match="not installed") as caught:
        state_dict(tiny)
    assert (
        "pip install torch==2.13.0 && pip install 'qwen-openai[transformers]'" in caught.value.fix
    )
