"""What a one-piece ChatML rendering of the converted directory gives, beside the original prompts.

The original tokenises each content apart. A template is rendered to one text: a content that begins
with white space then melts into the line feed before it, and control tokens in a content are real.
Our own renderer (prompting/qwen1.py) has neither fault; stock programs have both.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from qwen_openai.models.tiktoken_file import CONTROL_TOKENS

_IM_START, _IM_END = 151644, 151645


class Prompt(TypedDict):
    system: str
    history: list[tuple[str, str]]
    query: str
    ids: list[int]


@pytest.fixture(scope="module")
def prompts(golden: Path) -> list[Prompt]:
    lines = (golden / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def stock(converted: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(converted)
    return tokenizer


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    """The turns that are in the prompt: the window of the original leaves out the oldest."""
    turns = sum(1 for token in _structure(prompt) if token == _IM_START)
    kept = (turns - 3) // 2
    pairs = prompt["history"][len(prompt["history"]) - kept :]
    return [
        {"role": "system", "content": prompt["system"]},
        *(
            {"role": role, "content": content}
            for pair in pairs
            for role, content in zip(("user", "assistant"), pair, strict=True)
        ),
        {"role": "user", "content": prompt["query"]},
    ]


def _structure(prompt: Prompt) -> list[int]:
    return [token for token in prompt["ids"] if token >= 151643]


def _begins_with_white_space(message: Mapping[str, str]) -> bool:
    return message["content"] != message["content"].lstrip()


def _names_control_tokens(message: Mapping[str, str]) -> bool:
    return any(token in message["content"] for token in CONTROL_TOKENS)


def _in_one_piece(stock: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """Render, then tokenise what lies between control tokens, those in contents being inert."""
    mark = "\ue000"
    marked = [each | {"content": each["content"].replace("<", f"<{mark}")} for each in messages]
    text = stock.apply_chat_template(marked, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    plain = Tokenizer(stock.backend_tokenizer.model)
    plain.normalizer = stock.backend_tokenizer.normalizer
    plain.pre_tokenizer = stock.backend_tokenizer.pre_tokenizer
    ids: list[int] = []
    for piece in re.split(r"(<\|im_start\|>|<\|im_end\|>)", text):
        if (token := stock.backend_tokenizer.token_to_id(piece)) in (_IM_START, _IM_END):
            ids.append(token)
        else:
            ids += plain.encode(piece.replace(mark, "")).ids
    return ids


def test_where_one_piece_rendering_differs(
    stock: PreTrainedTokenizerBase, prompts: list[Prompt]
) -> None:
    as_stock = inert = tight = plain = 0
    for prompt in prompts:
        messages = _messages(prompt)
        ids = stock.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        as_stock += ids != prompt["ids"]
        inert_ids = _in_one_piece(stock, messages)
        inert += inert_ids != prompt["ids"]
        if not any(map(_begins_with_white_space, messages)):
            tight += 1
            assert inert_ids == prompt["ids"]
            if not any(map(_names_control_tokens, messages)):
                plain += 1
                assert ids == prompt["ids"]
    # 338 for white space alone; a stock program lets through the control tokens in contents too.
    assert (len(prompts), inert, as_stock) == (400, 338, 375)
    assert (tight, plain) == (31, 13)


def test_without_a_system_message_there_is_the_default(stock: PreTrainedTokenizerBase) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert stock.apply_chat_template(turns, tokenize=False) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>"
    )
    asked = stock.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert isinstance(asked, str)
    assert asked.endswith("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n")
