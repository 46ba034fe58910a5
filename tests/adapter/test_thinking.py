"""Asking for thoughts, of models that never have any, always, or as they are told."""

from dataclasses import replace

import pytest

from qwen_openai.adapter.chat import chat_job
from qwen_openai.adapter.limits import Limits
from qwen_openai.adapter.thinking import Thoughts, thoughts_of
from qwen_openai.core import Job
from qwen_openai.errors import UnsupportedParameter
from qwen_openai.families import family_named
from tests.protocol.bodies import parsed

SWITCHED = family_named("qwen3")
NEVER = replace(SWITCHED, thinking="never")
ALWAYS = replace(SWITCHED, thinking="always")
ON: list[dict[str, object]] = [
    {"enable_thinking": True},
    {"chat_template_kwargs": {"enable_thinking": True}},
    {"reasoning_effort": "low"},
    {"reasoning_effort": "max"},
    {"chat_template_kwargs": {"reasoning_effort": "high"}},
]
OFF: list[dict[str, object]] = [
    {"enable_thinking": False},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"reasoning_effort": "none"},
    {"reasoning_effort": "minimal"},
    {"chat_template_kwargs": {"reasoning_effort": "none"}},
    {"enable_thinking": False, "reasoning_effort": "minimal"},
]


def place(changes: dict[str, object]) -> str:
    """The first parameter of a change, as it is named in errors."""
    name, value = next(iter(changes.items()))
    return f"{name}.{next(iter(value))}" if isinstance(value, dict) else name


def test_saying_nothing_leaves_it_to_the_template() -> None:
    assert thoughts_of(parsed(), SWITCHED) == Thoughts(True)
    assert thoughts_of(parsed(), NEVER) == Thoughts(False)
    assert thoughts_of(parsed(), ALWAYS) == Thoughts(True)


@pytest.mark.parametrize("changes", ON)
def test_asking_for_thoughts(changes: dict[str, object]) -> None:
    request = parsed(**changes)
    levels = (place(changes),) if place(changes).endswith("effort") else ()
    told = tuple(f"{name} switches thinking on, without a level" for name in levels)
    assert thoughts_of(request, SWITCHED) == Thoughts(True, True, changes=told)
    assert thoughts_of(request, ALWAYS) == Thoughts(True, ignored=levels)
    assert thoughts_of(request, NEVER) == Thoughts(False, ignored=(place(changes),))


@pytest.mark.parametrize("changes", OFF)
def test_asking_for_none(changes: dict[str, object]) -> None:
    request = parsed(**changes)
    assert thoughts_of(request, SWITCHED) == Thoughts(False, False)
    assert thoughts_of(request, NEVER) == Thoughts(False)
    with pytest.raises(UnsupportedParameter) as caught:
        thoughts_of(request, ALWAYS)
    assert caught.value.param == place(changes)


@pytest.mark.parametrize(
    ("effort", "word"),
    [("low", "low"), ("medium", "medium"), ("high", "xhigh"), ("xhigh", "xhigh"), ("max", "xhigh")],
)
def test_an_effort_in_the_templates_own_words(effort: str, word: str) -> None:
    family = family_named("qwen3.8")
    options = (("reasoning_effort", word),)
    request = parsed(reasoning_effort=effort)
    assert thoughts_of(request, family) == Thoughts(True, True, options)
    inner = parsed(chat_template_kwargs={"reasoning_effort": effort})
    assert thoughts_of(inner, family) == Thoughts(True, True, options)
    assert thoughts_of(parsed(reasoning_effort="minimal"), family) == Thoughts(False, False)


def test_an_option_that_the_template_does_not_have_is_reported() -> None:
    request = parsed(chat_template_kwargs={"preserve_thinking": False})
    told = thoughts_of(request, family_named("qwen3.6"))
    assert told.options == (("preserve_thinking", False),)
    assert thoughts_of(request, SWITCHED).ignored == ("chat_template_kwargs.preserve_thinking",)


def job(**changes: object) -> Job:
    return chat_job(parsed(**changes), id="x", family=SWITCHED, limits=Limits())


def test_an_answer_with_thoughts_has_its_own_sampling() -> None:
    thinking, plain = job(), job(enable_thinking=False)
    assert (thinking.thinks, thinking.enable_thinking) == (True, None)
    assert (plain.thinks, plain.enable_thinking) == (False, False)
    assert (thinking.sampling.temperature, thinking.sampling.top_p) == (0.6, 0.95)
    assert (plain.sampling.temperature, plain.sampling.top_p) == (0.7, 0.8)
    assert job(temperature=1, top_k=3).sampling.temperature == 1


def test_a_continued_answer_has_its_thoughts_behind_it() -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "I th"}]
    assert not job(messages=messages, continue_final_message=True).thinks
