"""What a request is reckoned at: safe beside the real tokenizer, counted once, soon done."""

import json
from dataclasses import replace

import pytest

from qwen_openai.core import Job, Message, RawPrompt, Sampling, Tool, ToolCall
from qwen_openai.gateway.estimate import prompt_tokens_of, text_tokens, tokens_of
from qwen_openai.prompting.bpe import Bpe
from tests.real import real_files

NUMBERS = json.dumps([[round(a * b * 1.37, 3) for a in range(9)] for b in range(50)])
TEXTS = {
    "English": (
        "All human beings are born free and equal in dignity and rights. They are endowed with "
        "reason and conscience and should act towards one another in a spirit of brotherhood."
    ),
    "code": (
        "def mean(values: list[float]) -> float:\n    if not values:\n"
        '        raise ValueError("no values")\n    return sum(values) / len(values)\n'
    ),
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟之情相待。",
    "emoji": "Great job 🎉🎉! See you tomorrow 😀 and don't forget the cake 🍰. 👍🏽👨‍👩‍👧‍👦🏳️‍🌈",
    "JSON": json.dumps({"name": "Paris", "tags": ["city", "capital"], "area": 105.4}, indent=2),
    "numbers": NUMBERS,
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
}


def job(*contents: str, **values: object) -> Job:
    messages = tuple(Message("user", content) for content in contents)
    return replace(Job("id", "model", messages), **values)  # type: ignore[arg-type]  # any of its fields


@pytest.fixture(scope="module")
def bpe() -> Bpe:
    return Bpe(real_files().tokenizer)


@pytest.mark.real
@pytest.mark.parametrize("kind", TEXTS)
def test_no_ordinary_text_has_many_more_tokens_than_reckoned(bpe: Bpe, kind: str) -> None:
    real = len(bpe.encode(TEXTS[kind]))
    assert 0.95 <= text_tokens(TEXTS[kind]) / real <= 1.8


def test_a_long_text_is_reckoned_from_parts_of_it() -> None:
    for text in TEXTS.values():
        long = text * (300_000 // len(text))
        short = sum(text_tokens(long[at : at + 50_000]) for at in range(0, len(long), 50_000))
        assert text_tokens(long) == pytest.approx(short, rel=0.05)


def test_lone_surrogates_are_some_text_too() -> None:
    assert text_tokens("\ud800") >= 1
    assert text_tokens("") == 1


def test_prompt_and_longest_answer_are_reserved() -> None:
    asked = job("Hello there", sampling=Sampling(max_tokens=100))
    assert tokens_of([asked], default_max_tokens=7) == 100 + prompt_tokens_of([asked])
    unsaid = job("Hello there")
    assert tokens_of([unsaid], default_max_tokens=7) == 7 + prompt_tokens_of([unsaid])
    bounded = replace(asked, max_total=50)
    assert tokens_of([bounded], default_max_tokens=7) == 50


def test_the_prompt_of_several_answers_is_counted_once() -> None:
    asked = job("Hello " * 100, sampling=Sampling(max_tokens=10), n=3)
    jobs = [replace(asked, choice=choice) for choice in range(6)]
    one = prompt_tokens_of(jobs[:1])
    assert tokens_of(jobs, default_max_tokens=1) == 6 * 10 + 2 * one
    assert prompt_tokens_of(jobs) == 2 * one


def test_everything_that_the_model_reads_counts() -> None:
    bare = prompt_tokens_of([job("Hi")])
    call = ToolCall("1", "weather", '{"city": "Paris"}')
    said = Message("assistant", "", tool_calls=(call,), reasoning="They want to know.")
    tool = Tool("weather", "Tells the weather", {"type": "object", "properties": {}})
    assert prompt_tokens_of([replace(job("Hi"), tools=(tool,))]) > bare + 20
    both = (Message("user", "Hi"), said)
    assert prompt_tokens_of([replace(job("Hi"), messages=both)]) > bare + 10
    raw = job(prompt=RawPrompt("one two three", "four"))
    assert prompt_tokens_of([raw]) > prompt_tokens_of([job(prompt=RawPrompt(""))])
    assert prompt_tokens_of([job(prompt=RawPrompt((5, 6, 7)))]) == 3
