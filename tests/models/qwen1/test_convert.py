"""The converted directory: bit for bit, complete or not there, and loaded by stock transformers."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import Qwen1Facts, chat_template, read_checkpoint
from qwen_openai.models.qwen1 import convert, state_dict
from tests.models import tiny
from tests.models.conftest import Told
from tests.models.qwen1 import tiny_qwen1
from tests.models.qwen1.conftest import Rows, worst_logit

_WIDE = tiny_qwen1.safetensors(tiny_qwen1.tensors("F32"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_qwen1.write(tmp_path / "source", tiny_qwen1.files(shards=3))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "target"


def test_stock_transformers_loads_it_and_gives_the_golden_logits(
    converted: Path, rows: Rows
) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        converted, dtype=torch.float32, trust_remote_code=False
    )
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert worst_logit(model, rows("logits.jsonl")) < 1e-4
    assert model.generation_config.eos_token_id == [151643, 151645, 151644]
    assert model.generation_config.repetition_penalty == 1.1


def test_stock_transformers_gives_the_golden_ids(converted: Path, rows: Rows) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted, trust_remote_code=False)
    wrong = [
        row
        for row in rows("tokens.jsonl")
        if tokenizer(row["text"])["input_ids"] != row["ids_with_control_tokens"]
    ]
    assert wrong == []
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (151645, 151643)
    assert tokenizer.convert_tokens_to_ids("<|extra_204|>") == 151850
    assert len(tokenizer) == 151851


def test_no_bit_is_changed(source: Path, target: Path) -> None:
    told = Told()
    done = convert(source, target, told)
    wanted = state_dict(source)
    got = {
        name: tensor
        for file in sorted(target.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name].view(torch.int16), tensor.view(torch.int16))

    sizes = sum(tensor.nbytes for tensor in wanted.values())
    assert (done.shards, done.weight_bytes) == (3, sizes)
    assert told.labels == ["Writing target"]
    assert told.advances[0][-1] == sizes
    assert told.advances[0] == sorted(told.advances[0])


def test_a_file_for_each_file(source: Path, target: Path) -> None:
    convert(source, target, Told())
    index = json.loads((target / "model.safetensors.index.json").read_text())
    places: dict[str, str] = {}
    for file in sorted(target.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as opened:
            places |= dict.fromkeys(opened.keys(), file.name)
    assert index["weight_map"] == places
    assert sorted(set(places.values())) == [
        f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]


def test_what_lies_beside_the_weights(source: Path, target: Path) -> None:
    convert(source, target, Told())
    assert (target / "LICENSE").read_bytes() == (source / "LICENSE").read_bytes()
    assert (target / "NOTICE").is_file()
    assert not list(target.glob("*.py"))
    found = read_checkpoint(target)
    assert not found.raw
    assert found.qwen1 == Qwen1Facts(32, use_dynamic_ntk=True, use_logn_attn=True)
    assert (found.context_length, found.dtype) == (128, "bfloat16")
    before = read_checkpoint(source)
    assert found.kv_values_per_token == before.kv_values_per_token
    assert found.weight_bytes == before.weight_bytes
    assert chat_template(found) == chat_template(before)


def test_of_safetensors_little_is_held_and_torch_not_needed(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done = convert(source, target, Told())
    largest = max(len(raw) for _, _, raw in tiny_qwen1.tensors().values())
    assert 0 < done.peak_bytes <= largest


def test_of_pickles_one_file_is_held(source: Path, target: Path) -> None:
    files = sorted(source.glob("model-*.safetensors"))
    held = []
    places: dict[str, str] = {}
    for file in files:
        tensors = load_file(file)
        name = file.name.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        torch.save(tensors, source / name)
        places |= dict.fromkeys(tensors, name)
        held.append(sum(tensor.nbytes for tensor in tensors.values()))
        file.unlink()
    (source / "model.safetensors.index.json").unlink()
    index = json.dumps({"weight_map": places})
    (source / "pytorch_model.bin.index.json").write_text(index)
    done = convert(source, target, Told())
    assert done.peak_bytes == max(held) < done.weight_bytes == sum(held)
    assert len(list(target.glob("*.safetensors"))) == 3


def test_numbers_of_several_widths_stay_aligned(tmp_path: Path, target: Path) -> None:
    tensors = tiny_qwen1.tensors()
    wide = tiny_qwen1.tensors("F32")
    mixed = {name: (wide if "ln_" in name else tensors)[name] for name in tensors}
    source = tiny_qwen1.write(tmp_path / "source", tiny_qwen1.files(mixed))
    convert(source, target, Told())
    got, wanted = load_file(target / "model.safetensors"), state_dict(source)
    assert got["model.norm.weight"].dtype == torch.float32
    assert all(got[name].view(torch.int8).equal(wanted[name].view(torch.int8)) for name in wanted)
    start = int.from_bytes((target / "model.safetensors").read_bytes()[:8], "little")
    assert start % 8 == 0


def test_an_empty_target_will_do(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    convert(source, target, Told())
    assert (target / "config.json").is_file()


def test_a_target_that_holds_something_is_left_alone(source: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for taken in (full, full / "mine.txt", link, source):
        with pytest.raises(StartupError, match="is there already"):
            convert(source, taken, Told())
    assert os.listdir(full) == ["mine.txt"]


class _Interrupted(Told):
    def advance(self, done_bytes: int) -> None:
        if done_bytes > 9000:
            raise KeyboardInterrupt


def test_an_interrupted_conversion_leaves_nothing(source: Path, target: Path) -> None:
    told = _Interrupted()
    with pytest.raises(KeyboardInterrupt):
        convert(source, target, told)
    assert not told.open
    assert list(target.parent.iterdir()) == []


def test_what_a_killed_conversion_left_is_removed(source: Path, target: Path) -> None:
    left = target.parent / f".{target.name}.converting-{2**22 + 1}"  # no process has that number
    ours = target.parent / f".{target.name}.converting-1"
    for folder in (left, ours):
        folder.mkdir(parents=True)
    convert(source, target, Told())
    assert sorted(target.parent.iterdir()) == [ours, target]


def test_a_full_disk_is_noticed_before(source: Path, target: Path) -> None:
    with pytest.raises(StartupError, match="are free there"):
        convert(source, target, Told(), free_space=lambda _: 10**6)
    assert list(target.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_may_not_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StartupError, match="cannot be written"):
        convert(source, tmp_path / "closed" / "target", Told())


def test_a_target_below_a_file(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot be written"):
        convert(source, tmp_path / "file" / "target", Told())


def test_what_needs_no_conversion(source: Path, target: Path, tmp_path: Path) -> None:
    convert(source, target, Told())
    native = tmp_path / "native"
    tiny_qwen1.write(native, {file.name: file.read_bytes() for file in target.iterdir()})
    config = json.loads((native / "config.json").read_text())
    del config["qwen_openai"]
    (native / "config.json").write_text(json.dumps(config))
    gguf = tiny_qwen1.write(tmp_path / "gguf", {"tiny.gguf": tiny.gguf()})
    for given, reason in [
        (target, "converted already"),
        (native, "is no Qwen-1"),
        (gguf, "is GGUF"),
        (gguf / "tiny.gguf", "is GGUF"),
        (tmp_path, "config.json cannot be read"),
        (tmp_path / "nothing", "config.json cannot be read"),
    ]:
        with pytest.raises(StartupError, match=reason):
            convert(given, tmp_path / "other", Told())
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.safetensors", _WIDE[:-1], "is damaged"),
        ("model.safetensors", tiny_qwen1.safetensors({}), "of the type none"),
        ("config.json", json.dumps(tiny_qwen1.CONFIG | {"no_bias": False}).encode(), "biases"),
        ("config.json", json.dumps(tiny_qwen1.CONFIG | {"vocab_size": 9}).encode(), "not 9 × 8"),
        ("generation_config.json", b"not json", "generation_config"),
        ("qwen.tiktoken", b"not base64", "its line 1"),
    ],
)
def test_a_source_that_is_not_sound(
    tmp_path: Path, target: Path, name: str, content: bytes, reason: str
) -> None:
    files = tiny_qwen1.files() | {name: content}
    source = tiny_qwen1.write(tmp_path / "source", files)
    with pytest.raises(StartupError, match=reason):
        convert(source, target, Told())
    assert not target.exists()
    assert not target.parent.exists() or list(target.parent.iterdir()) == []
