"""What is read out of a model once and kept beside it."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_openai.errors import StartupError
from qwen_openai.models.describe import CHATML_TEMPLATE, describe, load_description
from tests.models.tiny_gguf import (
    TEMPLATE,
    encode_gguf,
    tiny_metadata,
    tiny_vocabulary,
    write_tiny_model,
)

TOKENS, KINDS, _ = tiny_vocabulary()


def test_describes_and_loads_back(tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path / "m.gguf")
    into = tmp_path / "new" / "folder"
    description = describe(weights, into)
    assert description.name == "Qwen2.5-Tiny"
    assert description.architecture == "qwen2"
    assert description.context_length == 2048
    # keys and values * 1 layer * 1 head of 16 * 2 bytes
    assert description.kv_bytes_per_token == 2 * 1 * 1 * 16 * 2
    assert description.weight_bytes == weights.stat().st_size
    assert description.template == TEMPLATE
    assert description.licence == "apache-2.0"
    assert load_description(into) == description
    assert sorted(path.name for path in into.iterdir()) == ["model.json", "tokenizer.json"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"general__finetune": "Instruct"}, "Qwen2.5-Tiny-Instruct"),
        ({"general__size_label": None}, "Qwen2.5"),
        ({"general__basename": None}, "Tiny-Qwen"),
        ({"general__basename": None, "general__name": None}, "some-file"),
    ],
)
def test_names(tmp_path: Path, changes: dict[str, str | None], name: str) -> None:
    weights = write_tiny_model(tmp_path / "some-file.gguf", **changes)
    assert describe(weights, tmp_path).name == name


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"qwen2__attention__head_count_kv": None}, 2 * 2 * 16 * 2),
        ({"qwen2__attention__key_length": 8}, (8 + 16) * 2),
        ({"qwen2__attention__key_length": 8, "qwen2__attention__value_length": 4}, (8 + 4) * 2),
        ({"qwen2__block_count": 24}, 24 * 2 * 16 * 2),
    ],
)
def test_size_of_the_cache(tmp_path: Path, changes: dict[str, int | None], size: int) -> None:
    weights = write_tiny_model(tmp_path / "m.gguf", **changes)
    assert describe(weights, tmp_path).kv_bytes_per_token == size


def test_a_model_without_a_template_gets_chatml(tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path / "m.gguf", tokenizer__chat_template=None)
    assert describe(weights, tmp_path).template == CHATML_TEMPLATE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"general__architecture": None}, "architecture"),
        ({"qwen2__context_length": None}, "qwen2.context_length"),
        ({"qwen2__attention__head_count": 0}, "qwen2.attention.head_count"),
        ({"qwen2__block_count": "many"}, "qwen2.block_count"),
        ({"split__count": 3}, "split into several files"),
        (
            {"tokenizer__ggml__token_type": [1 if kind == 3 else kind for kind in KINDS]},
            "no control token",
        ),
    ],
)
def test_refuses(
    tmp_path: Path, changes: dict[str, str | int | list[int] | None], reason: str
) -> None:
    weights = write_tiny_model(tmp_path / "m.gguf", **changes)
    with pytest.raises(StartupError, match=reason):
        describe(weights, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path / "m.gguf")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot be written"):
        describe(weights, tmp_path / "file")


def test_describing_again_replaces(tmp_path: Path) -> None:
    describe(write_tiny_model(tmp_path / "m.gguf"), tmp_path)
    describe(write_tiny_model(tmp_path / "m.gguf", general__license="mit"), tmp_path)
    loaded = load_description(tmp_path)
    assert loaded is not None
    assert loaded.licence == "mit"


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"format": 0}',
        '{"format": 1}',
        '{"format": 1, "name": "x", "surplus": 1}',
    ],
)
def test_no_description_when_absent_damaged_or_older(tmp_path: Path, content: str | None) -> None:
    assert load_description(tmp_path) is None
    describe(write_tiny_model(tmp_path / "m.gguf"), tmp_path)
    if content is None:
        (tmp_path / "model.json").unlink()
    else:
        (tmp_path / "model.json").write_text(content)
    assert load_description(tmp_path) is None


def test_an_older_format_is_made_anew(tmp_path: Path) -> None:
    describe(write_tiny_model(tmp_path / "m.gguf"), tmp_path)
    document = json.loads((tmp_path / "model.json").read_text())
    document["format"] -= 1
    (tmp_path / "model.json").write_text(json.dumps(document))
    assert load_description(tmp_path) is None


def test_no_description_without_its_tokenizer(tmp_path: Path) -> None:
    describe(write_tiny_model(tmp_path / "m.gguf"), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert load_description(tmp_path) is None


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_model_is_one_error_or_a_description(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(encode_gguf(tiny_metadata()))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    (tmp_path / "m.gguf").write_bytes(raw)
    try:
        description = describe(tmp_path / "m.gguf", tmp_path)
    except StartupError:
        return
    assert load_description(tmp_path) == description


def test_the_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    """A cache may belong to several users; only their umask decides who reads it."""
    weights = tmp_path / "model.gguf"
    write_tiny_model(weights)
    into = tmp_path / "described"
    into.mkdir()
    describe(weights, into)
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert {path.stat().st_mode for path in into.iterdir()} == {plain.stat().st_mode}
