"""QwenChat on the generations whose own classes have no `chat`."""

from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from qwen_openai import QwenChat
from qwen_openai.core import Message
from tests.engines.tiny_model import MODELS


def test_qwen3(qwen3_folder: Path) -> None:
    model = QwenChat.from_pretrained(qwen3_folder)
    assert model.config.model_type == "qwen3"
    reply, history = model.chat(None, "hello", do_sample=False, max_new_tokens=8)
    assert history == [("hello", reply)]
    *_, streamed = model.chat_stream(None, "hello", do_sample=False, max_new_tokens=8)
    assert streamed == reply


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_the_same_tokens_as_transformers(kind: str, qwen2_folder: Path, qwen3_folder: Path) -> None:
    folder = {"qwen2": qwen2_folder, "qwen3": qwen3_folder}[kind]
    model = QwenChat.from_pretrained(folder)
    prompt = model.renderer.render([Message("user", "hello")])
    greedy = {"max_new_tokens": 20, "repetition_penalty": 1.2, "do_sample": False}
    stock = MODELS[kind].from_pretrained(folder)
    theirs = stock.generate(  # type: ignore[misc]  # its types do not know its own mixin
        torch.tensor([prompt]),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
        generation_config=GenerationConfig.from_dict(greedy),
    )[0, len(prompt) :]
    ours, _ = model.chat(None, "hello", do_sample=False, max_new_tokens=20, repetition_penalty=1.2)
    assert list(ours.token_ids) == theirs.tolist()[: len(ours.token_ids)]
