"""The converted directory: bit for bit, complete or not there, and loaded by stock transformers."""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwen_openai.errors import StartupError
from qwen_openai.models import qwen1
from qwen_openai.models.checkpoint import Qwen1Facts, chat_template, read_checkpoint
from qwen_openai.models.qwen1 import state_dict
from tests.models import tiny
from tests.models.conftest import Told
from tests.models.qwen1 import tiny_qwen1
from tests.models.qwen1.conftest import Rows, worst_logit

# Of the tiny vocabulary; that of the published size takes a second each time.
convert = partial(qwen1.convert, ranks=tiny_qwen1.RANKS)
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
    for taken in (full, full / "mine.txt", link):
        with pytest.raises(StartupError, match="is there already") as caught:
            convert(source, taken, Told())
        assert "delete" not in caught.value.fix
    assert os.listdir(full) == ["mine.txt"]


def test_the_model_itself_is_no_target(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(source.iterdir())
    monkeypatch.chdir(source.parent)
    link = source.parent / "link"
    link.symlink_to(source)
    for taken, what in [
        (source, "is"),
        (Path("source"), "is"),
        (Path("source/../source"), "is"),
        (link, "is"),
        (Path(), "holds"),
        (source.parent.parent, "holds"),
    ]:
        with pytest.raises(StartupError, match=f"{what} the model that is to be conv") as caught:
            convert(Path("source"), taken, Told())
        assert caught.value.fix == "Give the path of a new folder."
    assert sorted(source.iterdir()) == before


def test_a_home_that_there_is_not(source: Path) -> None:
    with pytest.raises(StartupError, match="a user that this machine does not know"):
        convert(source, Path("~no-such-user/model"), Told())


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


@pytest.mark.parametrize("name", ["target", "a**b", "q[1]", "*"])
def test_what_a_killed_conversion_left_is_removed(source: Path, tmp_path: Path, name: str) -> None:
    """By its lock, which dies with its holder, wherever that ran: a process number says nothing in
    another container or on another machine."""
    place = tmp_path / "place"
    left, empty, held, other, mine = (
        place / f".{leaf}"
        for leaf in (
            f"{name}.converting-abcdefgh",
            f"{name}.converting-12345678",
            f"{name}.converting-_held_on",
            "another.converting-abcdefgh",
            f"{name}.converting-and-more",
        )
    )
    for folder in (left, empty, held, other, mine):
        folder.mkdir(parents=True)
    (left / "lock").touch()
    (left / "new").mkdir()
    (left / "new" / "model.safetensors").touch()
    link = place / f".{name}.converting-linkedto"
    link.symlink_to(other)
    with FileLock(held / "lock"):
        convert(source, place / name, Told())
    assert sorted(place.iterdir()) == sorted([held, other, mine, link, place / name])


def test_the_result_has_the_rights_of_any_new_folder(source: Path, target: Path) -> None:
    convert(source, target, Told())
    (target.parent / "any").mkdir()
    assert target.stat().st_mode == (target.parent / "any").stat().st_mode
    assert sorted(target.parent.iterdir()) == [target.parent / "any", target]


class _Meanwhile(Told):
    """Once weights are written, something else happens."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self._happens: Callable[[], object] | None = happens

    def advance(self, done_bytes: int) -> None:
        super().advance(done_bytes)
        if self._happens is not None:
            happens, self._happens = self._happens, None
            happens()


def test_of_two_conversions_to_one_place_the_first_stays(source: Path, target: Path) -> None:
    told = _Meanwhile(lambda: convert(source, target, Told()))
    with pytest.raises(StartupError, match="filled by another program while this one") as caught:
        convert(source, target, told)
    assert caught.value.message.count(". ") == 0
    assert list(target.parent.iterdir()) == [target]
    assert not read_checkpoint(target).raw


def test_a_source_that_cannot_be_read_is_what_is_named(source: Path, target: Path) -> None:
    weights = source / "model-00003-of-00003.safetensors"

    def spoil() -> None:
        weights.unlink()
        weights.mkdir()

    with pytest.raises(StartupError, match="cannot be read") as caught:
        convert(source, target, _Meanwhile(spoil))
    assert str(weights) in caught.value.message
    assert list(target.parent.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails")
def test_a_licence_that_cannot_be_read_is_what_is_named(source: Path, target: Path) -> None:
    (source / "NOTICE").unlink()
    (source / "NOTICE").symlink_to("/proc/self/mem")
    with pytest.raises(StartupError, match="NOTICE cannot be read"):
        convert(source, target, Told())
    assert not target.parent.exists()


def test_the_type_stated_is_the_one_written(source: Path, target: Path) -> None:
    """A .bin tells nothing unread, and its config's flag is often wrong."""
    tensors = {
        name: tensor.to(torch.float32 if "ln_" in name else torch.float16)
        for file in source.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    for file in source.glob("model*"):
        file.unlink()
    torch.save(tensors, source / "pytorch_model.bin")
    assert read_checkpoint(source).dtype == "bfloat16"
    convert(source, target, Told())
    assert json.loads((target / "config.json").read_text())["torch_dtype"] == "float16"


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_a_mask_that_was_saved_along_is_left_out(tmp_path: Path, target: Path, format: str) -> None:
    mask = {"transformer.h.0.attn.bias": ("BOOL", (300, 300), bytes(90_000))}
    files = tiny_qwen1.files({**mask, **tiny_qwen1.tensors()})
    source = tiny_qwen1.write(tmp_path / "source", files)
    if format == "bin":
        torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
        (source / "model.safetensors").unlink()
    convert(source, target, Told())
    assert load_file(target / "model.safetensors").keys() == state_dict(source).keys()
    assert read_checkpoint(target).dtype == "bfloat16"


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


def _config(**changes: object) -> bytes:
    return json.dumps(tiny_qwen1.CONFIG | changes).encode()


_INTEGER = tiny_qwen1.tensors() | {"lm_head.weight": tiny_qwen1.tensors("I8")["lm_head.weight"]}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.safetensors", _WIDE[:-1], "is damaged"),
        ("model.safetensors", tiny_qwen1.safetensors({}), "of the type none"),
        ("config.json", _config(no_bias=False), "biases"),
        ("config.json", _config(vocab_size=9), "vocab_size is 9, too few"),
        ("config.json", _config(vocab_size=511), "not 511 × 8"),
        ("config.json", _config(rotary_emb_base="1e6"), "config.json .* rotary_emb_base"),
        ("config.json", _config(layer_norm_epsilon=0), "config.json .* layer_norm_epsilon"),
        ("config.json", _config(initializer_range="x"), "config.json .* initializer_range"),
        ("config.json", _config(bf16="yes"), "config.json .* bf16"),
        ("config.json", _config(kv_channels=2), "config.json .* kv_channels"),
        ("generation_config.json", b"not json", "generation_config.json cannot"),
        ("qwen.tiktoken", b"not base64", "qwen.tiktoken .* its line 1"),
        ("qwen.tiktoken", b"version https://git-lfs.github.com/spec/v1\n", "its line 1"),
        ("qwen.tiktoken", tiny_qwen1.tiktoken(merges=()), "has 256 tokens"),
        ("model.safetensors", tiny_qwen1.safetensors(_INTEGER), "'lm_head.weight' is of the type"),
    ],
)
def test_a_source_that_is_not_sound(
    tmp_path: Path, target: Path, name: str, content: bytes, reason: str
) -> None:
    files = tiny_qwen1.files() | {name: content}
    source = tiny_qwen1.write(tmp_path / "source", files)
    told = Told()
    with pytest.raises(StartupError, match=reason) as caught:
        convert(source, target, told)
    assert str(source) in caught.value.message
    # Before a byte of a 15 GB model is written.
    assert not told.labels
    assert not target.parent.exists()
