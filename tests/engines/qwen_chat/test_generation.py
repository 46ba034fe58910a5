"""The token loop: pieces of the prompt, limits, and memory that is free after an answer."""

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from qwen_openai.core import Sampling
from qwen_openai.engines.qwen_chat.cache import GrowingLayer
from qwen_openai.engines.qwen_chat.generation import TokenLoop
from qwen_openai.engines.torch_model.devices import first_device
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.torch_model.load import Loaded, load

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def loaded(qwen2_folder: Path) -> Loaded:
    return load(qwen2_folder, "cpu", "auto", None)


def answer(loop: TokenLoop, limits: Limits, sampling: Sampling = GREEDY) -> list[int]:
    """The tokens behind a short prompt."""
    steps = loop.run([1, 2, 3], sampling, limits)
    return [step.token for step in steps if step is not None]


def caches() -> int:
    gc.collect()
    # isinstance would ask torch's deprecated proxies for their class, and they warn.
    return sum(type(each) is DynamicCache for each in gc.get_objects())


@pytest.mark.parametrize(("size", "pieces"), [(1, 1), (8, 1), (9, 2), (40, 5)])
def test_a_prompt_is_read_in_pieces(loaded: Loaded, size: int, pieces: int) -> None:
    prompt = [n % 7 for n in range(size)]
    steps = list(TokenLoop(loaded.model, None, 8).run(prompt, GREEDY, Limits(5, frozenset())))
    whole = list(TokenLoop(loaded.model).run(prompt, GREEDY, Limits(5, frozenset())))
    assert steps[:pieces] == [None] * pieces
    assert steps[pieces:] == whole[1:]
    assert len(whole) == 6


def test_the_cache_has_room_for_prompt_and_answer_alone(loaded: Loaded) -> None:
    steps = TokenLoop(loaded.model, None, 8).run(range(40), GREEDY, Limits(20, frozenset()))
    next(steps)
    gc.collect()
    layers = [each for each in gc.get_objects() if type(each) is GrowingLayer]
    sizes = [buffer.shape[-2] for layer in layers for buffer in layer._buffers or ()]
    assert sizes == [60] * 2 * loaded.model.config.num_hidden_layers
    steps.close()


def test_the_piece_is_chosen_by_the_device(loaded: Loaded) -> None:
    assert TokenLoop(loaded.model).piece == 128


def test_the_piece_may_be_set(loaded: Loaded) -> None:
    loop = TokenLoop(loaded.model)
    running = loop.run(range(20), GREEDY, Limits(1, frozenset()))
    next(running)
    loop.piece = 5
    assert list(running)[:-1] == []
    assert list(loop.run(range(20), GREEDY, Limits(1, frozenset())))[:-1] == [None] * 4


def test_a_stop_token_that_the_model_does_not_have(loaded: Loaded) -> None:
    loop = TokenLoop(loaded.model)
    limits = Limits(3, frozenset({2**40}), min_tokens=3)
    assert len(list(loop.run([1, 2], GREEDY, limits))) == 4


def test_it_ends_with_a_stop_token(loaded: Loaded) -> None:
    loop = TokenLoop(loaded.model)
    tokens = answer(loop, Limits(9, frozenset()))
    stop = tokens[4]
    first = tokens.index(stop)
    assert answer(loop, Limits(9, frozenset({stop}))) == tokens[: first + 1]
    for limits in (
        Limits(9, frozenset({stop}), min_tokens=9),
        Limits(9, frozenset({stop}), barred=frozenset({stop})),
    ):
        later = answer(loop, limits)
        assert stop not in later
        assert len(later) == 9


def test_a_bias_on_a_token_that_the_model_does_not_have(loaded: Loaded) -> None:
    loop = TokenLoop(loaded.model)
    biased = replace(GREEDY, logit_bias=((2**40, 100.0), (5, 100.0)))
    assert answer(loop, Limits(3, frozenset()), biased) == [5, 5, 5]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_closing_frees_the_cache(loaded: Loaded, steps: int) -> None:
    before = caches()
    answer = TokenLoop(loaded.model, None, 4).run(range(6), GREEDY, Limits(9, frozenset()))
    for _ in range(steps):
        next(answer)
    assert caches() == before + (steps > 0)
    answer.close()
    assert caches() == before


def test_a_finished_answer_leaves_nothing(loaded: Loaded) -> None:
    before = caches()
    answer = TokenLoop(loaded.model).run([1, 2], GREEDY, Limits(3, frozenset()))
    assert len(list(answer)) == 4
    assert caches() == before


def test_a_prompt_has_tokens(loaded: Loaded) -> None:
    with pytest.raises(ValueError, match="no tokens"):
        list(TokenLoop(loaded.model).run([], GREEDY, Limits(3, frozenset())))


@pytest.mark.parametrize(
    ("places", "device"),
    [
        (None, "cpu"),
        ({"": "cpu"}, "cpu"),
        ({"model.embed_tokens": "cpu", "model.layers": "cuda:1", "lm_head": "disk"}, "cuda:1"),
    ],
)
def test_ids_go_to_the_first_card(
    qwen2_folder: Path, places: dict[str, str] | None, device: str
) -> None:
    model = load(qwen2_folder, "cpu", "auto", None).model
    vars(model)["hf_device_map"] = places  # as accelerate leaves it
    assert first_device(model) == torch.device(device)
