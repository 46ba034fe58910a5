"""Models that answer: the golden Qwen-1, as published and converted, and tiny ones of today."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from qwen_openai import QwenChat
from qwen_openai.engines.torch_model.load import Loaded, load
from qwen_openai.models.progress import Untold
from qwen_openai.models.qwen1 import convert
from tests.engines.tiny_model import write_native

# The fixtures, for the conftest.py of each room that has such models.
__all__ = [
    "converted_folder",
    "golden",
    "golden_chats",
    "golden_logits",
    "one_thread",
    "qwen1",
    "qwen1_loaded",
    "qwen2",
    "qwen2_folder",
    "qwen3_folder",
    "qwen_home",
]


@dataclass(frozen=True, slots=True)
class GoldenChat:
    """A chat of the original: what was asked, and what its code made of it."""

    query: str
    history: list[tuple[str, str]]
    system: str
    max_new_tokens: int
    prompt_ids: list[int]
    greedy_ids: list[int]
    model_chat_text: str
    model_chat_stream_yields: list[str]


@dataclass(frozen=True, slots=True)
class GoldenLogits:
    """What follows ``ids`` in the original."""

    ids: list[int]
    top_ids: list[int]
    top_logits: list[float]
    probe_ids: list[int]
    probe_logits: list[float]
    greedy: list[int]


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing by more, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    return shared / "golden" / "qwen1"


@pytest.fixture(scope="session")
def golden_chats(golden: Path) -> list[GoldenChat]:
    lines = (golden / "chat.jsonl").read_text("utf-8").splitlines()
    return [GoldenChat(**json.loads(line)) for line in lines]


@pytest.fixture(scope="session")
def golden_logits(golden: Path) -> Callable[[str], list[GoldenLogits]]:
    def read(name: str) -> list[GoldenLogits]:
        lines = (golden / f"{name}.jsonl").read_text("utf-8").splitlines()
        return [GoldenLogits(**json.loads(line)) for line in lines]

    return read


@pytest.fixture(scope="session")
def qwen_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder in which a Qwen-1's tokenizer is kept."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def qwen1_loaded(golden: Path, qwen_home: Path) -> Loaded:
    """The golden checkpoint as published."""
    return load(golden / "checkpoint", "cpu", "float32", qwen_home)


@pytest.fixture(scope="session")
def qwen1(qwen1_loaded: Loaded) -> QwenChat:
    return QwenChat(qwen1_loaded)


@pytest.fixture(scope="session")
def converted_folder(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "Qwen-7B-Chat"
    convert(golden / "checkpoint", folder, Untold())
    return folder


@pytest.fixture(scope="session")
def qwen2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_native(tmp_path_factory.mktemp("Qwen2-Tiny"), "qwen2")


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_native(tmp_path_factory.mktemp("Qwen3-Tiny"), "qwen3")


@pytest.fixture(scope="session")
def qwen2(qwen2_folder: Path) -> QwenChat:
    """A small model of today: fast, with a vocabulary of a few hundred tokens."""
    return QwenChat.from_pretrained(qwen2_folder)
