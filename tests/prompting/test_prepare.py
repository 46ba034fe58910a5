"""Limits: what fits, what is clamped, what is dropped, and that all of it is said."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_openai.core import Grammar, Job, Message, RawPrompt, Sampling, Tool
from qwen_openai.errors import ContextLengthExceeded, InvalidRequest
from qwen_openai.grammars.build import whole
from qwen_openai.prompting.prepare import Prompt, prepare, prompt_ids
from qwen_openai.prompting.render import Renderer
from qwen_openai.prompting.renderer import Around
from tests.prompting.templates import HERMES, TAGS

HELLO = (Message("user", "hello world"),)


def job(
    messages: Sequence[Message] = HELLO,
    max_tokens: int | None = None,
    max_total: int | None = None,
    drop: bool = False,
) -> Job:
    return Job(
        id="j",
        model="m",
        messages=tuple(messages),
        sampling=Sampling(max_tokens=max_tokens),
        max_total=max_total,
        drop_oldest_pairs=drop,
    )


def run(tiny: Renderer, job: Job, context: int, default: int = 100) -> Prompt:
    return prepare(job, tiny, context=context, default_max_tokens=default)


def chat(pairs: int, text: str = "hello world", system: bool = True) -> list[Message]:
    """System, ``pairs`` of user and assistant, and a last question; each text is different."""
    messages = [Message("system", "s")] if system else []
    for n in range(pairs):
        messages += [Message("user", f"{text} u{n}."), Message("assistant", f"{text} a{n}.")]
    return [*messages, Message("user", "last")]


@pytest.fixture(scope="module")
def size(tiny: Renderer) -> int:
    return len(tiny.render(HELLO))


@pytest.mark.parametrize("room", [1, 2, 99, 100, 101])
def test_without_max_tokens_the_default_or_the_room(tiny: Renderer, size: int, room: int) -> None:
    prompt = run(tiny, job(), size + room)
    assert prompt == Prompt(tiny.render(HELLO), min(room, 100), ())


@pytest.mark.parametrize("room", [1, 7, 8, 9])
def test_max_tokens_is_clamped_to_the_room_and_said(tiny: Renderer, size: int, room: int) -> None:
    prompt = run(tiny, job(max_tokens=8), size + room)
    assert prompt.max_tokens == min(8, room)
    assert prompt.changes == ((f"max_tokens clamped to {room}",) if room < 8 else ())


def test_the_limit_that_the_tutorials_route_puts_in_is_clamped_in_silence(
    tiny: Renderer, size: int
) -> None:
    assert run(tiny, job(max_tokens=8, drop=True), size + 7) == Prompt(tiny.render(HELLO), 7, ())
    # With a max_length the caller has named a limit: that is said as ever.
    said = run(tiny, job(max_tokens=8, max_total=size + 7, drop=True), 2048)
    assert said.changes == ("max_tokens clamped to 7",)


@pytest.mark.parametrize("context", [1, 20])
def test_a_prompt_that_fills_the_context_is_refused(
    tiny: Renderer, size: int, context: int
) -> None:
    for limit in (context, size - 1, size):
        with pytest.raises(ContextLengthExceeded) as caught:
            run(tiny, job(), limit)
        assert f"maximum context length is {limit} tokens" in caught.value.message
        assert f"resulted in {size} tokens" in caught.value.message
        assert caught.value.param == "messages"
        assert caught.value.code == "context_length_exceeded"


def test_far_too_long_a_prompt_is_refused_with_at_least(tiny: Renderer) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        run(tiny, job([Message("user", "1" * 5_000_000)]), 256)
    found = re.search(r"resulted in at least (\d+) tokens", caught.value.message)
    assert found is not None
    assert 256 < int(found[1]) < 5_000_000


def test_ten_times_too_long_is_counted_exactly(tiny: Renderer) -> None:
    messages = [Message("user", "1" * 2560)]
    with pytest.raises(ContextLengthExceeded, match=f"in {len(tiny.render(messages))} tokens"):
        run(tiny, job(messages), 256)


def test_max_total_bounds_prompt_and_answer(tiny: Renderer, size: int) -> None:
    assert run(tiny, job(max_total=size + 5), 2048).max_tokens == 5
    assert run(tiny, job(max_total=size + 500), 2048).max_tokens == 500
    assert run(tiny, job(max_total=size + 5, max_tokens=3), 2048).max_tokens == 3
    clamped = run(tiny, job(max_total=size + 5, max_tokens=9), 2048)
    assert clamped == Prompt(tiny.render(HELLO), 5, ("max_tokens clamped to 5",))


def test_max_total_beyond_the_context_is_clamped_and_said(tiny: Renderer, size: int) -> None:
    prompt = run(tiny, job(max_total=9999), size + 7)
    assert (prompt.max_tokens, prompt.changes) == (7, (f"max_length clamped to {size + 7}",))
    assert run(tiny, job(max_total=size + 7), size + 7).changes == ()


def test_max_total_that_the_prompt_fills_is_refused_with_both_numbers(
    tiny: Renderer, size: int
) -> None:
    for drop in (False, True):
        with pytest.raises(ContextLengthExceeded) as caught:
            run(tiny, job(max_total=size, drop=drop), 2048)
        assert f"max_length is {size} tokens" in caught.value.message
        assert f"resulted in {size} tokens" in caught.value.message


@given(
    pairs=st.integers(0, 12),
    context=st.integers(24, 800),
    max_tokens=st.integers(1, 400),
    system=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_drops_whole_oldest_pairs_and_as_few_as_needed(
    tiny: Renderer, pairs: int, context: int, max_tokens: int, system: bool
) -> None:
    messages = chat(pairs, system=system)
    head = 1 if system else 0

    def without(dropped: int) -> list[Message]:
        return messages[:head] + messages[head + 2 * dropped :]

    goal = context - min(max_tokens, context // 4)
    sizes = [len(tiny.render(without(dropped))) for dropped in range(pairs + 1)]
    fitting = [dropped for dropped, size in enumerate(sizes) if size <= goal]
    dropped = fitting[0] if fitting else pairs
    asked = job(messages, max_tokens=max_tokens, drop=True)
    if sizes[dropped] >= context:
        with pytest.raises(ContextLengthExceeded, match=f"in {sizes[pairs]} tokens"):
            run(tiny, asked, context)
        return
    prompt = run(tiny, asked, context)
    assert prompt.ids == tiny.render(without(dropped))
    said = [change for change in prompt.changes if "history" in change]
    plural = "s" if dropped > 1 else ""
    assert said == ([f"history: dropped {dropped} oldest pair{plural}"] if dropped else [])
    assert 1 <= prompt.max_tokens <= max_tokens
    assert len(prompt.ids) + prompt.max_tokens <= context


def test_dropping_within_max_total(tiny: Renderer) -> None:
    messages = chat(6)
    whole = len(tiny.render(messages))
    prompt = run(tiny, job(messages, max_total=whole, drop=True), 4096)
    assert "dropped" in prompt.changes[0]
    assert len(prompt.ids) + prompt.max_tokens == whole
    assert prompt.max_tokens >= whole // 4 - 1


def test_nothing_is_dropped_unless_the_job_allows_it(tiny: Renderer) -> None:
    messages = chat(6)
    with pytest.raises(ContextLengthExceeded):
        run(tiny, job(messages), len(tiny.render(messages)))


def test_the_system_message_and_the_last_question_stay(tiny: Renderer) -> None:
    messages = chat(3)
    prompt = run(tiny, job(messages, max_tokens=1, drop=True), 40)
    assert tiny.decode(prompt.ids).count("<|im_start|>") == 3
    assert prompt.changes == ("history: dropped 3 oldest pairs",)
    with pytest.raises(ContextLengthExceeded):
        run(tiny, job(messages, max_tokens=1, drop=True), 16)


def test_a_long_history_is_dropped_without_counting_it_again_and_again(tiny: Renderer) -> None:
    prompt = run(tiny, job(chat(1000), max_tokens=10, drop=True), 600)
    assert tiny.decode(prompt.ids).count("u999.") == 1
    assert len(prompt.ids) <= 590


def test_a_job_may_continue_its_last_message(tiny: Renderer) -> None:
    messages = (Message("user", "q"), Message("assistant", "Once"))
    asked = Job(id="j", model="m", messages=messages, continue_final_message=True)
    prompt = run(tiny, asked, 200)
    assert tiny.decode(prompt.ids).endswith("assistant\nOnce")


def test_what_the_template_refuses_is_refused(tiny: Renderer) -> None:
    with pytest.raises(InvalidRequest):
        run(tiny, job([Message("user", "\udfff")]), 200)


@pytest.fixture(scope="module")
def hermes(tiny_tokenizer: Path) -> Renderer:
    return Renderer.load(tiny_tokenizer, HERMES)


@pytest.fixture(scope="module")
def opening(tiny_tokenizer: Path) -> Renderer:
    """Its template opens a thought."""
    return Renderer.load(tiny_tokenizer, TAGS)


def test_tools_switches_and_options_are_in_the_prompt(hermes: Renderer) -> None:
    asked = replace(
        job(), tools=(Tool("f"),), enable_thinking=False, template_options=(("effort", "low"),)
    )
    expected = hermes.compose(HELLO, Around((Tool("f"),), False, (("effort", "low"),))).ids
    assert run(hermes, asked, 2048).ids == expected == prompt_ids(asked, hermes)


def test_all_ids_are_told_whatever_their_number(tiny: Renderer) -> None:
    asked = job([Message("user", "1" * 5000)], max_total=5)
    assert prompt_ids(asked, tiny) == tiny.render(asked.messages)


RULES = 'answer: "yes" | "no"'


@pytest.mark.parametrize("thinks", [True, False])
def test_the_grammar_begins_where_the_answer_does(
    tiny: Renderer, opening: Renderer, thinks: bool
) -> None:
    asked = replace(job(), grammar=Grammar(RULES, "response_format"), thinks=thinks)
    plain, opened = run(tiny, asked, 2048), run(opening, asked, 2048)
    assert (plain.in_thought, opened.in_thought) == (False, True)
    assert plain.grammar == whole(RULES, "may" if thinks else "none")
    assert opened.grammar == whole(RULES, "open")
    assert run(tiny, job(), 2048).grammar is None


@pytest.mark.parametrize("number", [-1, 10**6, 2**40])
def test_token_ids_that_are_none_are_refused(tiny: Renderer, number: int) -> None:
    for param, sampling in (
        ("stop_token_ids", Sampling(stop_token_ids=(1, number))),
        ("logit_bias", Sampling(logit_bias=((1, 1.0), (number, -100.0)))),
    ):
        with pytest.raises(InvalidRequest, match=str(number)) as caught:
            run(tiny, replace(job(), sampling=sampling), 2048)
        assert caught.value.param == param


def test_stop_ids_are_the_jobs(tiny: Renderer) -> None:
    last = tiny.vocab_size - 1
    sampling = Sampling(stop_token_ids=(3, last, 3), logit_bias=((last, 5.0),))
    assert run(tiny, replace(job(), sampling=sampling), 2048).stop_ids == (3, last)


def test_min_tokens_raises_the_default_and_nothing_else(tiny: Renderer, size: int) -> None:
    def least(min_tokens: int, max_tokens: int | None = None) -> Job:
        sampling = Sampling(min_tokens=min_tokens, max_tokens=max_tokens)
        return replace(job(), sampling=sampling)

    assert run(tiny, least(150), 2048, default=100).max_tokens == 150
    assert run(tiny, least(50), 2048, default=100).max_tokens == 100
    assert run(tiny, least(9), size + 9).max_tokens == 9
    for asked in (least(10), least(10, 20)):
        with pytest.raises(InvalidRequest, match="min_tokens is 10") as caught:
            run(tiny, asked, size + 9)
        assert caught.value.param == "min_tokens"


def test_a_raw_prompt_stands_in_place_of_messages(tiny: Renderer) -> None:
    asked = replace(job(()), prompt=RawPrompt("hello<|im_end|>"))
    ids = tiny.raw(RawPrompt("hello<|im_end|>"))
    assert run(tiny, asked, len(ids) + 5) == Prompt(ids, 5)
    assert prompt_ids(asked, tiny) == ids
    for window in (len(ids), 1):
        with pytest.raises(
            ContextLengthExceeded, match=f"your prompt resulted in {len(ids)} "
        ) as caught:
            run(tiny, asked, window)
        assert caught.value.param == "prompt"


def test_a_huge_raw_prompt_is_refused_soon(tiny: Renderer) -> None:
    for text in ("1" * 5_000_000, "<|im_end|>" * 500_000, tuple([1] * 500_000)):
        with pytest.raises(ContextLengthExceeded, match="at least"):
            run(tiny, replace(job(()), prompt=RawPrompt(text)), 256)


@pytest.mark.real
def test_a_suffix_brings_its_stop_tokens(real: Renderer) -> None:
    asked = replace(job(()), prompt=RawPrompt("def f(", "return x"))
    prompt = run(real, asked, 2048)
    assert real.decode(prompt.ids) == "<|fim_prefix|>def f(<|fim_suffix|>return x<|fim_middle|>"
    assert prompt.stop_ids == (151659, 151661, 151660, 151662, 151663, 151664)
    assert run(real, replace(asked, sampling=Sampling(ignore_eos=True)), 2048).stop_ids == ()
    own = Sampling(stop_token_ids=(5, 151662))
    assert run(real, replace(asked, sampling=own), 2048).stop_ids[:2] == (5, 151662)
    assert run(real, replace(asked, prompt=RawPrompt("x")), 2048).stop_ids == ()
