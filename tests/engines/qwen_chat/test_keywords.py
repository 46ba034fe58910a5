"""What callers of QwenChat may say beside the question: keywords of the original, and settings."""

import json
import shutil
from pathlib import Path

import pytest

from qwen_openai import QwenChat
from qwen_openai.core import Message, Sampling, Text

THINKING = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
)


def test_the_originals_own_keywords(qwen2: QwenChat) -> None:
    plain, history = qwen2.chat(None, "hello", do_sample=False, max_new_tokens=3)
    reply, same = qwen2.chat(
        None,
        "hello",
        append_history=True,
        logits_processor=None,
        stopping_criteria=[],
        stream=False,
        num_beams=1,
        num_return_sequences=1,
        use_cache=True,
        do_sample=False,
        max_new_tokens=3,
    )
    assert (reply, same) == (plain, history)


def test_without_append_history_the_history_comes_back(qwen2: QwenChat) -> None:
    pairs = [("a", "b")]
    reply, history = qwen2.chat(None, "hello", pairs, append_history=False, max_new_tokens=1)
    assert reply.completion_tokens == 1
    assert history == pairs
    assert history is not pairs
    stream = qwen2.chat_stream(None, "hello", pairs, append_history=False, max_new_tokens=1)
    assert len(list(stream)) == 1
    assert pairs == [("a", "b")]


@pytest.mark.parametrize("low", [1e-40, 5e-324, 9e-4])
def test_a_tiny_temperature_is_greedy(qwen2: QwenChat, low: float) -> None:
    greedy, _ = qwen2.chat(None, "hello", do_sample=False, max_new_tokens=6)
    reply, _ = qwen2.chat(None, "hello", temperature=low, do_sample=True, max_new_tokens=6)
    assert reply.token_ids == greedy.token_ids


def test_prefill_is_what_is_read_at_once(qwen2: QwenChat) -> None:
    prompt = qwen2.renderer.render([Message("user", "hello " * 60)])
    greedy, before = Sampling(temperature=0), qwen2.prefill
    assert before == 128

    def steps() -> tuple[int, str]:
        texts = [event for event in qwen2.run(prompt, greedy, 4) if isinstance(event, Text)]
        return sum(event.tokens == 0 for event in texts), "".join(event.text for event in texts)

    expected = steps()
    asked = [qwen2.chat(None, "hello " * 60, do_sample=False, max_new_tokens=4)[0]]
    try:
        for tokens in (1, 7, 50, 512):
            qwen2.prefill = tokens
            assert qwen2.prefill == tokens
            assert steps() == (-(-len(prompt) // tokens), expected[1])
            asked += [qwen2.chat(None, "hello " * 60, do_sample=False, max_new_tokens=4)[0]]
        with pytest.raises(ValueError, match="at least 1 token, not 0"):
            qwen2.prefill = 0
    finally:
        qwen2.prefill = before
    assert len({reply.token_ids for reply in asked}) == 1


@pytest.fixture
def thinker(qwen3_folder: Path, tmp_path: Path) -> QwenChat:
    folder = Path(shutil.copytree(qwen3_folder, tmp_path / "Qwen3-Thinker"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": THINKING}))
    return QwenChat.from_pretrained(folder)


def test_thinking_can_be_switched_off(thinker: QwenChat) -> None:
    thinker.generation_config = {"do_sample": False, "max_new_tokens": 2}
    own, _ = thinker.chat(None, "hello")
    on, _ = thinker.chat(None, "hello", enable_thinking=True)
    off, _ = thinker.chat(None, "hello", enable_thinking=False)
    assert own.prompt_tokens == on.prompt_tokens
    assert off.prompt_tokens == own.prompt_tokens + 6  # two tags and four line feeds
    again = thinker.chat_stream(None, "hello", enable_thinking=False)
    assert again.prompt_tokens == off.prompt_tokens
    window = thinker.chat_stream(
        None, "hello", [("a", "b")], enable_thinking=False, max_window_size=on.prompt_tokens + 1
    )
    assert (window.dropped_pairs, window.prompt_tokens) == (1, off.prompt_tokens)


def test_where_there_are_no_thoughts_it_has_no_effect(qwen2: QwenChat, qwen1: QwenChat) -> None:
    for model in (qwen2, qwen1):
        plain = model.chat_stream(None, "hello", max_new_tokens=1).prompt_tokens
        for thinking in (False, True):
            stream = model.chat_stream(None, "hello", enable_thinking=thinking)
            assert stream.prompt_tokens == plain
