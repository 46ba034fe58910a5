"""What transformers' own bar would show is told instead, and only that of the weights."""

from transformers.utils import logging

from qwen_openai.engines.torch_model.progress import reporting


def test_each_weight_is_told_and_the_end() -> None:
    told: list[tuple[int, int]] = []
    with reporting(lambda done, total: told.append((done, total))):
        assert list(logging.tqdm(["a", "b", "c"], desc="Loading weights")) == ["a", "b", "c"]
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_other_bars_are_left_alone_and_afterwards_all_are() -> None:
    told: list[tuple[int, int]] = []
    with reporting(lambda done, total: told.append((done, total))):
        assert list(logging.tqdm([1, 2], desc="Something else", disable=True)) == [1, 2]
    assert list(logging.tqdm([1, 2], desc="Loading weights", disable=True)) == [1, 2]
    assert told == []


def test_nobody_needs_to_listen() -> None:
    with reporting(None):
        assert list(logging.tqdm([1], desc="Loading weights", disable=True)) == [1]
