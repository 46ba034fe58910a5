"""QwenChat against what the original code gave: ids, texts, streams, logits."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from qwen_openai import QwenChat
from qwen_openai.core import Finish, Sampling, Text
from qwen_openai.engines.qwen_chat.cache import Extent
from qwen_openai.engines.qwen_chat.generation import Answer, TokenLoop
from qwen_openai.engines.qwen_chat.reply import Reply
from qwen_openai.engines.sampling import Picked
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.torch_model.load import Loaded
from tests.engines.loaded import GoldenChat, GoldenLogits

STOPS = {151643, 151644, 151645}
GREEDY: list[dict[str, object]] = [{"do_sample": False}, {"temperature": 0}, {"top_k": 1}]
FILES = [("logits", 5), ("logits_past_seq_length", 3)]


def ask(
    model: QwenChat, row: GoldenChat, **keywords: object
) -> tuple[Reply, list[tuple[str, str]]]:
    keywords["max_new_tokens"] = row.max_new_tokens
    return model.chat(None, row.query, row.history, row.system, **keywords)


def spell(model: QwenChat, ids: list[int]) -> str:
    """Decode in one go what is not special."""
    special = {
        number
        for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
        if (number := model.renderer.token_id(token)) is not None
    }
    return model.renderer.decode([number for number in ids if number not in special])


def test_all_chats(qwen1: QwenChat, golden_chats: list[GoldenChat]) -> None:
    """Greedy ids, text and stream of all; the original's own text, as far as it goes.

    Its `chat`, unlike its `chat_stream`, takes white space off both ends of the reply.
    """
    cut = same = 0
    for row in golden_chats:
        reply, history = ask(qwen1, row, do_sample=False)
        assert list(reply.token_ids) == row.greedy_ids
        assert reply == spell(qwen1, row.greedy_ids)
        assert reply.prompt_tokens == len(row.prompt_ids)
        assert history == [*map(tuple, row.history), (row.query, reply)]
        if row.greedy_ids[-1] in STOPS:
            assert reply.finish_reason == "stop"
            assert reply.strip() == row.model_chat_text
        else:
            cut += 1
            assert reply.finish_reason == "length"
            assert reply.strip().startswith(row.model_chat_text.rstrip("\ufffd"))
        same += stream_is_right(qwen1, row, reply)
    assert cut > 5
    # The original drops bytes that are no UTF-8 where decoding the whole gives U+FFFD.
    assert same >= len(golden_chats) - 3


def stream_is_right(model: QwenChat, row: GoldenChat, reply: str) -> bool:
    """Check a stream; return whether its values are the original's, each."""
    stream = model.chat_stream(
        None,
        row.query,
        row.history,
        system=row.system,
        max_new_tokens=row.max_new_tokens,
        do_sample=False,
    )
    values = list(stream)
    assert values[-1] == reply == stream.text
    assert list(stream.token_ids) == row.greedy_ids
    assert all(after.startswith(before) for before, after in pairwise(values))
    if values != row.model_chat_stream_yields:
        assert "\ufffd" in reply
        return False
    return True


@pytest.mark.parametrize("greedy", GREEDY, ids=repr)
def test_greedy_in_each_way(
    qwen1: QwenChat, golden_chats: list[GoldenChat], greedy: dict[str, object]
) -> None:
    for row in golden_chats[::16]:
        reply, _ = ask(qwen1, row, **greedy)
        assert list(reply.token_ids) == row.greedy_ids


def test_a_converted_directory_gives_the_same(
    converted_folder: Path, golden_chats: list[GoldenChat]
) -> None:
    model = QwenChat.from_pretrained(converted_folder)
    assert model.context == 1024
    for row in golden_chats[::8]:
        reply, _ = ask(model, row, do_sample=False)
        assert list(reply.token_ids) == row.greedy_ids


def test_run_gives_the_same(qwen1: QwenChat, golden_chats: list[GoldenChat]) -> None:
    sampling = Sampling(temperature=0, repetition_penalty=1.1)
    for row in golden_chats[::8]:
        events = list(qwen1.run(row.prompt_ids, sampling, row.max_new_tokens, index=3))
        *texts, finish = events
        assert isinstance(finish, Finish)
        assert finish.completion_tokens == len(row.greedy_ids)
        assert finish.reason == ("stop" if row.greedy_ids[-1] in STOPS else "length")
        assert all(isinstance(event, Text) and event.index == 3 for event in texts)
        spoken = [event for event in texts if isinstance(event, Text)]
        assert "".join(event.text for event in spoken) == spell(qwen1, row.greedy_ids)
        assert [event.tokens for event in spoken] == [0] + [1] * len(row.greedy_ids)


def last_logits(loaded: Loaded, ids: list[int], piece: int) -> torch.Tensor:
    answer = Answer(loaded.model, loaded.long_context, Extent(len(ids), 1))
    with torch.inference_mode():
        for start in range(0, len(ids), piece):
            logits = answer.forward(ids[start : start + piece])
    return logits


@pytest.mark.parametrize(("name", "count"), FILES)
@pytest.mark.parametrize("piece", [512, 128, 100, 33])
def test_logits(
    qwen1_loaded: Loaded,
    golden_logits: Callable[[str], list[GoldenLogits]],
    name: str,
    count: int,
    piece: int,
) -> None:
    rows = golden_logits(name)
    assert len(rows) == count
    for row in rows:
        logits = last_logits(qwen1_loaded, row.ids, piece)
        for ids, values in ((row.top_ids, row.top_logits), (row.probe_ids, row.probe_logits)):
            assert float((logits[ids] - torch.tensor(values)).abs().max()) <= 1e-4


@pytest.mark.parametrize(("name", "count"), FILES)
@pytest.mark.parametrize("piece", [512, 100])
def test_greedy_tokens_behind_them(
    qwen1_loaded: Loaded,
    golden_logits: Callable[[str], list[GoldenLogits]],
    name: str,
    count: int,
    piece: int,
) -> None:
    loop = TokenLoop(qwen1_loaded.model, qwen1_loaded.long_context, piece)
    for row in golden_logits(name):
        steps = loop.run(row.ids, Sampling(temperature=0), Limits(len(row.greedy), frozenset()))
        assert [step.token for step in steps if step is not None] == row.greedy


def test_long_and_short_requests_in_turn(
    qwen1_loaded: Loaded, golden_logits: Callable[[str], list[GoldenLogits]]
) -> None:
    """In the original, a long prompt changes the tokens of a short one that is being answered."""
    loop = TokenLoop(qwen1_loaded.model, qwen1_loaded.long_context, 64)
    rows = [*golden_logits("logits"), *golden_logits("logits_past_seq_length")]
    limits = Limits(8, frozenset())
    answers = [loop.run(row.ids, Sampling(temperature=0), limits) for row in rows]
    tokens: list[list[int]] = [[] for _ in rows]
    running = set(range(len(rows)))
    while running:
        for number in sorted(running):
            step = next(answers[number], -1)
            if step == -1:
                running.remove(number)
            elif isinstance(step, Picked):
                tokens[number].append(step.token)
    assert tokens == [row.greedy for row in rows]


def test_a_short_context_has_no_hooks(converted_folder: Path, qwen1_loaded: Loaded) -> None:
    """A stock Qwen2 stays one: what Qwen-1 needs beyond its length is on its own modules only."""
    stock = AutoModelForCausalLM.from_pretrained(converted_folder)
    assert not any(module._forward_hooks for module in stock.modules())
    hooked = [name for name, module in qwen1_loaded.model.named_modules() if module._forward_hooks]
    layers = len(qwen1_loaded.model.model.layers)
    assert len(hooked) == layers + 1
