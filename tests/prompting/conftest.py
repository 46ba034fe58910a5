"""Renderers: one on a tiny vocabulary for every test, one on the embedded model where marked."""

from pathlib import Path

import pytest

from qwen_openai.models.describe import describe, load_description
from qwen_openai.prompting.bpe import Bpe
from qwen_openai.prompting.render import Renderer
from tests.models.tiny_gguf import TEMPLATE, write_tiny_model
from tests.real import real_files


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer.json of the tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    describe(write_tiny_model(folder / "m.gguf"), folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="session")
def tiny(tiny_tokenizer: Path) -> Renderer:
    return Renderer.load(tiny_tokenizer, TEMPLATE)


@pytest.fixture(scope="session")
def real_tokenizer() -> Path:
    """The tokenizer.json of the embedded model; skips without it."""
    return real_files().tokenizer


@pytest.fixture(scope="session")
def real(real_tokenizer: Path) -> Renderer:
    description = load_description(real_tokenizer.parent)
    assert description is not None
    return Renderer.load(real_tokenizer, description.template)


@pytest.fixture(scope="session")
def real_bpe(real_tokenizer: Path) -> Bpe:
    return Bpe(real_tokenizer)
