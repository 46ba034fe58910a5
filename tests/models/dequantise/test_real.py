"""The embedded model made safetensors: the numbers of a stand-in that shares no code with ours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwen_openai.models.dequantise import dequantised
from tests.models.conftest import Told
from tests.models.qwen1.real_fixture import real_native
from tests.real import real_files

pytestmark = pytest.mark.real


def test_the_embedded_model_is_the_one_made_apart(home: Path, told: Told) -> None:
    files = real_files()
    checkpoint = dequantised(files, home, told)
    assert (checkpoint.dtype, checkpoint.context_length) == ("float16", 32_768)
    theirs = real_native()
    with (
        safe_open(str(checkpoint.folder / "model.safetensors"), "np") as ours,
        safe_open(str(theirs / "model.safetensors"), "np") as apart,
    ):
        # Its embedding, of which the file has two copies, is there once, as in the stand-in.
        assert sorted(ours.keys()) == sorted(apart.keys())
        for name in ours.keys():  # noqa: SIM118  # no mapping
            assert np.array_equal(ours.get_tensor(name), apart.get_tensor(name)), name

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "你好"}], add_generation_prompt=True, return_dict=False
    )
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    answer = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)  # type: ignore[misc]  # transformers' own self
    text = tokenizer.decode(answer[0, len(prompt) :], skip_special_tokens=True)
    assert text == "你好！有什么我可以帮忙的吗？"
