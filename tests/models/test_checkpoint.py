"""Directories of weights: recognised, measured, or refused in one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import (
    QWEN1_TEMPLATE,
    Checkpoint,
    Qwen1Facts,
    asks_for_code,
    chat_template,
    read_checkpoint,
    tokenizer_file,
)
from qwen_openai.models.describe import CHATML_TEMPLATE
from tests.models.qwen1 import tiny_qwen1

_NATIVE: dict[str, object] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 1024,
}


def _native(folder: Path, **config: object) -> Path:
    """A Qwen2 directory with one tensor: what is in it is for the engine to find out."""
    return tiny_qwen1.write(
        folder,
        {
            "config.json": json.dumps(_NATIVE | config).encode(),
            "model.safetensors": tiny_qwen1.safetensors({"a": ("F16", (3, 2), bytes(12))}),
            "tokenizer.json": b"{}",
        },
    )


def test_a_qwen1_as_published(tmp_path: Path) -> None:
    folder = tiny_qwen1.write(tmp_path / "Qwen-7B-Chat", tiny_qwen1.files(shards=3))
    found = read_checkpoint(folder)
    assert found == Checkpoint(
        name="Qwen-7B-Chat",
        folder=folder,
        raw=True,
        qwen1=Qwen1Facts(seq_length=32, use_dynamic_ntk=True, use_logn_attn=True),
        context_length=128,
        kv_values_per_token=2 * 2 * 8,
        weight_bytes=sum(len(raw) for *_, raw in tiny_qwen1.tensors().values()),
        dtype="bfloat16",
    )
    assert read_checkpoint(folder, "Qwen/Qwen-7B-Chat").name == "Qwen/Qwen-7B-Chat"
    assert asks_for_code(folder)
    assert chat_template(found) == QWEN1_TEMPLATE


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({}, 128),
        ({"use_logn_attn": False}, 32),
        ({"use_dynamic_ntk": None}, 32),
        ({"max_position_embeddings": None}, 32),
        ({"max_position_embeddings": 16}, 32),
    ],
)
def test_how_far_a_qwen1_goes(tmp_path: Path, config: dict[str, object], context: int) -> None:
    folder = tiny_qwen1.write(tmp_path / "model", tiny_qwen1.files(config=config))
    assert read_checkpoint(folder).context_length == context


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "qwen2_moe", "qwen3_moe"])
def test_later_generations(tmp_path: Path, model_type: str) -> None:
    found = read_checkpoint(_native(tmp_path / "model", model_type=model_type, head_dim=16))
    assert (found.raw, found.qwen1, found.context_length) == (False, None, 1024)
    assert found.kv_values_per_token == 2 * 3 * 2 * 16
    assert (found.weight_bytes, found.dtype) == (12, "float16")
    assert tokenizer_file(found) == found.folder / "tokenizer.json"
    assert not asks_for_code(found.folder)


def test_the_template_of_a_later_generation(tmp_path: Path) -> None:
    found = read_checkpoint(_native(tmp_path / "model"))
    assert chat_template(found) == CHATML_TEMPLATE
    beside = found.folder / "tokenizer_config.json"
    for stated, template in [
        ('{"chat_template": "one"}', "one"),
        ('{"chat_template": [{"name": "tools"}, {"name": "default", "template": "two"}]}', "two"),
        ('{"chat_template": 7}', CHATML_TEMPLATE),
    ]:
        beside.write_text(stated)
        assert chat_template(found) == template
    (found.folder / "chat_template.jinja").write_text("three")
    assert chat_template(found) == "three"
    (found.folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(StartupError, match="cannot be read"):
        chat_template(found)


def test_weights_in_the_older_format(tmp_path: Path) -> None:
    files = tiny_qwen1.files(config={"fp16": True})
    raw = files.pop("model.safetensors")
    folder = tiny_qwen1.write(tmp_path / "model", files | {"pytorch_model.bin": raw})
    found = read_checkpoint(folder)
    assert (found.weight_bytes, found.dtype) == (len(raw), "float16")


def test_the_older_format_is_read_of_a_qwen1_alone(tmp_path: Path) -> None:
    folder = _native(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(StartupError, match="pickles") as caught:
        read_checkpoint(folder)
    assert "safetensors" in caught.value.fix


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "'llama'"),
        ({"model_type": None, "architectures": ["OPTForCausalLM"]}, "'OPTForCausalLM'"),
        ({"model_type": None, "architectures": None}, "'none'"),
        ({"model_type": ["qwen"], "architectures": 7}, "'none'"),
        ({"visual": {"layers": 48}}, "for pictures"),
        ({"audio": {}}, "for sounds"),
        ({"quantization_config": {"bits": 4, "quant_method": "gptq"}}, "quantised"),
        ({"seq_length": None}, "seq_length is absent"),
        ({"seq_length": -1}, "seq_length is -1"),
        ({"seq_length": "8192"}, "seq_length is '8192'"),
        ({"seq_length": True}, "seq_length is True"),
        ({"seq_length": 2**60}, "seq_length"),
        ({"use_dynamic_ntk": "yes"}, "use_dynamic_ntk is 'yes'"),
        ({"hidden_size": 7}, "not a multiple"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_hidden_layers": 1e9}, "num_hidden_layers"),
        ({"max_position_embeddings": []}, "max_position_embeddings"),
    ],
)
def test_what_is_not_served(tmp_path: Path, config: dict[str, object], reason: str) -> None:
    folder = tiny_qwen1.write(tmp_path / "model", tiny_qwen1.files(config=config))
    with pytest.raises(StartupError, match=reason) as caught:
        read_checkpoint(folder)
    assert str(folder) in caught.value.message
    assert caught.value.message.count(". ") == 0
    assert caught.value.fix


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_config_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    files = tiny_qwen1.files()
    files.pop("config.json")
    folder = tiny_qwen1.write(tmp_path / "model", files)
    if content is not None:
        (folder / "config.json").write_bytes(content)
    with pytest.raises(StartupError, match=r"config\.json cannot be"):
        read_checkpoint(folder)
    assert not asks_for_code(folder)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("model.safetensors", "holds no weights"),
        ("qwen.tiktoken", r"no qwen\.tiktoken"),
    ],
)
def test_a_file_that_is_missing(tmp_path: Path, missing: str, reason: str) -> None:
    files = tiny_qwen1.files()
    files.pop(missing)
    folder = tiny_qwen1.write(tmp_path / "model", files)
    with pytest.raises(StartupError, match=reason):
        read_checkpoint(folder)


def test_a_later_generation_without_tokenizer(tmp_path: Path) -> None:
    folder = _native(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StartupError, match=r"no tokenizer\.json"):
        read_checkpoint(folder)


def test_the_tokenizer_is_made_once(tmp_path: Path) -> None:
    found = read_checkpoint(tiny_qwen1.write(tmp_path / "model", tiny_qwen1.files()))
    home = tmp_path / "home"
    made = tokenizer_file(found, home, ranks=tiny_qwen1.RANKS)
    assert made.is_relative_to(home)
    assert Tokenizer.from_file(str(made)).encode("abcab").ids == [257, 256]
    written = made.stat().st_mtime_ns
    assert tokenizer_file(found, home, ranks=tiny_qwen1.RANKS) == made
    assert made.stat().st_mtime_ns == written

    # Another vocabulary is another tokenizer, and the first one is not kept.
    (found.folder / "qwen.tiktoken").write_bytes(tiny_qwen1.tiktoken(merges=(b"bc",)))
    other = tokenizer_file(found, home, ranks=257)
    assert Tokenizer.from_file(str(other)).encode("abc").ids == [ord("a"), 256]
    assert not made.exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    found = read_checkpoint(tiny_qwen1.write(tmp_path / "model", tiny_qwen1.files()))
    home = tmp_path / "home"
    home.write_text("a file")
    with pytest.raises(StartupError, match="cannot be kept"):
        tokenizer_file(found, home, ranks=tiny_qwen1.RANKS)


def test_without_a_home_the_environment_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_checkpoint(tiny_qwen1.write(tmp_path / "model", tiny_qwen1.files()))
    monkeypatch.setenv("QWEN_OPENAI_HOME", str(tmp_path / "home"))
    made = tokenizer_file(found, ranks=tiny_qwen1.RANKS)
    assert made == tokenizer_file(found, tmp_path / "home", ranks=tiny_qwen1.RANKS)


def test_without_a_home_that_can_be_written_the_tokenizer_goes_with_the_process(
    tmp_path: Path,
) -> None:
    folder = tiny_qwen1.write(tmp_path / "model", tiny_qwen1.files())
    (tmp_path / "home").write_text("a file")
    (tmp_path / "tmp").mkdir()
    program = f"""
from pathlib import Path
from tokenizers import Tokenizer
from qwen_openai.models.checkpoint import read_checkpoint, tokenizer_file
made = tokenizer_file(read_checkpoint(Path({str(folder)!r})), ranks={tiny_qwen1.RANKS})
print(made, Tokenizer.from_file(str(made)).encode("abcab").ids, oct(made.parent.stat().st_mode))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ
        | {"QWEN_OPENAI_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "tmp"))
    assert done.stdout.endswith(" [257, 256] 0o40700\n")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_vocabulary_that_was_cut_is_refused(tmp_path: Path) -> None:
    files = tiny_qwen1.whole()
    lines = files["qwen.tiktoken"].splitlines(keepends=True)
    cut = b"".join(lines[:75_000])
    found = read_checkpoint(tiny_qwen1.write(tmp_path / "m", files | {"qwen.tiktoken": cut}))
    with pytest.raises(StartupError, match=r"qwen\.tiktoken .* 75000 tokens, .* 151643"):
        tokenizer_file(found, tmp_path / "home")


@pytest.mark.parametrize("is_made", [True, False])
def test_a_token_without_a_row(tmp_path: Path, is_made: bool) -> None:
    """A Qwen-1's 208 control tokens included, whether or not the tokenizer is in the cache."""
    folder = tiny_qwen1.write(tmp_path / "model", tiny_qwen1.files(config={"vocab_size": 467}))
    found, home = read_checkpoint(folder), tmp_path / "home"
    if is_made:
        tokenizer_file(found, home, ranks=tiny_qwen1.RANKS)
    config = json.dumps(tiny_qwen1.CONFIG | {"vocab_size": 466})
    (folder / "config.json").write_text(config)
    with pytest.raises(StartupError, match=r"vocab_size is 466, .* ids go up to 466"):
        tokenizer_file(found, home, ranks=tiny_qwen1.RANKS)


_BPE = {"model": {"vocab": {"a": 0, "b": 5}}, "added_tokens": [{"id": 7, "content": "<|im_end|>"}]}


@pytest.mark.parametrize(
    ("tokenizer", "rows", "reason"),
    [
        (_BPE, 8, None),
        (_BPE, 7, "ids go up to 7"),
        ({"model": {"vocab": {"a": 8}}}, 8, "ids go up to 8"),
        ({"model": {"vocab": {"a": 151_935}}}, None, None),
        ({"model": {"vocab": {"a": 151_936}}}, None, "ids go up to 151936"),
        ({"model": {"vocab": [["a", -1.0]]}, "added_tokens": [7, {"id": "7"}]}, 1, None),
        ([], 1, "no JSON object"),
    ],
)
def test_a_token_without_a_row_of_a_later_generation(
    tmp_path: Path, tokenizer: object, rows: int | None, reason: str | None
) -> None:
    found = read_checkpoint(_native(tmp_path / "model", vocab_size=rows))
    (found.folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if reason is None:
        assert tokenizer_file(found) == found.folder / "tokenizer.json"
    else:
        with pytest.raises(StartupError, match=reason):
            tokenizer_file(found)
