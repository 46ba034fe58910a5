"""Real weights the whole way: Qwen-1 on disk, converted, against the same numbers as a Qwen2."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwen_openai.models.checkpoint import read_checkpoint
from qwen_openai.models.qwen1 import convert
from tests.models.conftest import Told
from tests.models.qwen1.real_fixture import real_native, real_qwen1

pytestmark = pytest.mark.real

_STOPS = {151643, 151644, 151645}


def _answer(folder: Path, prompt: list[int]) -> tuple[torch.Tensor, list[int]]:
    """The logits behind the prompt, and the greedy answer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    answer: list[int] = []
    with torch.inference_mode():
        step = first = model(torch.tensor([prompt]), use_cache=True)
        while (token := int(step.logits[0, -1].argmax())) not in _STOPS and len(answer) < 24:
            answer.append(token)
            cache = step.past_key_values
            step = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
    return first.logits[0, -1], answer


def test_real_weights_answer_as_in_plain_transformers(tmp_path: Path) -> None:
    source = real_qwen1()
    target = tmp_path / "converted"
    done = convert(source, target, Told())
    assert (done.shards, done.weight_bytes) == (3, read_checkpoint(source).weight_bytes)
    assert done.peak_bytes <= 8 * 2**20

    tokenizer = AutoTokenizer.from_pretrained(target)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "你好"}], add_generation_prompt=True, tokenize=False
    )
    assert isinstance(text, str)
    prompt = tokenizer.encode(text)
    logits, ids = _answer(target, prompt)
    plain_logits, plain_ids = _answer(real_native(), prompt)
    assert float((logits - plain_logits).abs().max()) < 1e-3
    assert ids == plain_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "你好！有什么我可以帮忙的吗？"


def test_the_vocabulary_written_is_the_published_one(shared: Path) -> None:
    ours = (real_qwen1() / "qwen.tiktoken").read_bytes()
    assert ours == (shared / "golden/qwen1/checkpoint/qwen.tiktoken").read_bytes()


def test_keys_and_values_are_repeated_not_shared() -> None:
    with safe_open(str(real_qwen1() / "model-00001-of-00003.safetensors"), "pt") as opened:
        joined = opened.get_tensor("transformer.h.0.attn.c_attn.weight")
    assert tuple(joined.shape) == (3 * 14 * 64, 896)
    keys = joined[14 * 64 : 2 * 14 * 64].view(14, 64, 896)
    assert torch.equal(keys[0], keys[6])
    assert not torch.equal(keys[6], keys[7])
