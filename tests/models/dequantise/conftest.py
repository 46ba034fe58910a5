"""A tiny Qwen2, in transformers and as a GGUF that was pulled."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from qwen_openai.models.store import ModelFiles
from tests.models.dequantise import as_gguf
from tests.models.dequantise.made import files_of


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def qwen2() -> PreTrainedModel:
    return as_gguf.tiny_of("qwen2")


@pytest.fixture
def files(qwen2: PreTrainedModel, tmp_path: Path, home: Path) -> ModelFiles:
    return files_of(tmp_path, home, as_gguf.metadata_of("qwen2"), as_gguf.tensors_of(qwen2))
