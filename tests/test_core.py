"""The values themselves: frozen, slotted, with the defaults that the house relies on."""

import dataclasses

import pytest

from qwen_openai import core
from qwen_openai.core import (
    Admitted,
    Extra,
    Finish,
    Grammar,
    Job,
    Message,
    RawPrompt,
    Reasoning,
    Routed,
    Sampling,
    Started,
    Text,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
    Usage,
)

VALUES = [
    Message("user", "x"),
    Sampling(),
    Job("x", "m", ()),
    Admitted(0, 0.5),
    Routed(0, "left", 1),
    Extra(0),
    Started(0, 1),
    Text(0, "x"),
    Tool("f"),
    ToolCall("id", "f", "{}"),
    ToolCallStart(0, 0, "id", "f"),
    ToolCallArguments(0, 0, "{}"),
    Finish(0, "stop"),
    Usage(),
    Grammar('answer: "x"', "response_format"),
    RawPrompt("x"),
    Reasoning(0, "x"),
    TokenLogprob("x", b"x", -1.0),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_frozen_and_slotted(value: object) -> None:
    assert not hasattr(value, "__dict__")
    assert dataclasses.is_dataclass(value)
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


def test_every_value_is_tested_here() -> None:
    classes = {each for each in vars(core).values() if dataclasses.is_dataclass(each)}
    assert classes == {type(value) for value in VALUES}


def test_defaults_change_nothing() -> None:
    sampling = Sampling()
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (0, 0.0, 1.0)
    assert sampling.max_tokens is None
    assert Job("x", "m", ()).n == 1
    assert Text(0, "x").tokens == 1


@pytest.mark.parametrize(
    ("temperature", "greedy"), [(0.0, True), (1e-40, True), (1e-3, False), (1.0, False)]
)
def test_a_tiny_temperature_is_greedy(temperature: float, greedy: bool) -> None:
    assert Sampling(temperature=temperature).is_greedy is greedy


def test_total_tokens() -> None:
    assert Usage(5, 3, 2).total_tokens == 8
