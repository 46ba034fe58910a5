"""The bodies of requests to llama.cpp."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Sampling
from qwen_openai.engines.llamacpp.requests import (
    Body,
    Tokens,
    named,
    penalty_changes,
    request_body,
    step_body,
    stop_ids,
    to_uint32,
)
from qwen_openai.errors import UnsupportedParameter
from qwen_openai.prompting.prepare import Prompt
from tests.engines.contract import job

int64 = st.integers(-(2**63), 2**63 - 1)


@given(int64, st.integers(0, 127))
def test_every_seed_is_taken_and_none_means_random(seed: int, choice: int) -> None:
    mapped = to_uint32(seed, choice)
    assert 0 <= mapped < 0xFFFFFFFF
    assert mapped == to_uint32(seed, choice)


@given(int64)
def test_neighbouring_choices_get_different_seeds(seed: int) -> None:
    assert to_uint32(seed, 0) != to_uint32(seed, 1)


def test_the_seed_that_llama_takes_for_random_is_avoided() -> None:
    assert to_uint32(0xFFFFFFFF, 0) != 0xFFFFFFFF
    assert to_uint32(-1, 0) != 0xFFFFFFFF


def test_no_seed_draws_a_fresh_one() -> None:
    assert len({to_uint32(None, 0) for _ in range(8)}) > 1


# Three bytes of a bird, an end of the model's own, and control tokens from 96 on.
PIECES = {7: " 🦜".encode()[:3], 8: b"a", 98: b"<|im_end|>"}
TOKENS = Tokens(
    stop_ids=frozenset({50, 98}),
    special=frozenset({96, 97, 98}),
    size=100,
    piece=lambda number: PIECES.get(number, b"x"),
)


def body(sampling: Sampling, grammar: str | None = None) -> dict[str, Any]:
    """The body of a job with this sampling."""
    prompt = Prompt([1, 2], 9, grammar=grammar, stop_ids=sampling.stop_token_ids)
    made = request_body(job(sampling=sampling), prompt, TOKENS, context=1024, prompt_cache=False)
    return dict(json.loads(json.dumps(made)))


def test_every_sampling_field_is_sent() -> None:
    sampling = Sampling(
        temperature=0.5,
        top_p=0.4,
        top_k=3,
        min_p=0.2,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        repetition_penalty=1.2,
        seed=5,
    )
    sent = body(sampling)
    wanted = {
        "prompt": [1, 2],
        "n_predict": 9,
        "temperature": 0.5,
        "top_p": 0.4,
        "top_k": 3,
        "min_p": 0.2,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "repeat_penalty": 1.2,
        "repeat_last_n": 1024,
        "seed": 5,
        "stop": [],
        "cache_prompt": False,
        "mirostat": 0,
        "dry_multiplier": 0.0,
        "xtc_probability": 0.0,
        "dynatemp_range": 0.0,
        "typical_p": 1.0,
    }
    assert {name: sent[name] for name in wanted} == wanted
    assert sent["samplers"].index("temperature") < sent["samplers"].index("top_p")


def test_temperature_0_is_greedy() -> None:
    sent = body(Sampling(temperature=0.0, top_k=40))
    assert (sent["top_k"], sent["temperature"]) == (1, 1.0)


@pytest.mark.parametrize(
    ("sampling", "names"),
    [
        (Sampling(), ()),
        (Sampling(repetition_penalty=1.1), ()),
        (Sampling(presence_penalty=0.5), ("presence_penalty",)),
        (
            Sampling(presence_penalty=-0.5, frequency_penalty=1.0),
            ("presence_penalty", "frequency_penalty"),
        ),
    ],
)
def test_penalties_that_differ_from_openai_are_said(
    sampling: Sampling, names: tuple[str, ...]
) -> None:
    changes = penalty_changes(sampling)
    assert changes == tuple(f"{name} counts the prompt's tokens too" for name in names)


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-45, 9.9e-4])
def test_a_temperature_too_small_to_divide_by_is_greedy(temperature: float) -> None:
    sent = body(Sampling(temperature=temperature, top_k=40))
    assert (sent["temperature"], sent["top_k"]) == (1.0, 1)


def test_a_small_temperature_is_sent() -> None:
    sent = body(Sampling(temperature=1e-3, top_k=40))
    assert (sent["temperature"], sent["top_k"]) == (1e-3, 40)


@pytest.mark.parametrize(("asked", "sent"), [(None, 0), (0, 1), (1, 1), (20, 20)])
def test_logprobs_ask_for_one_alternative_at_least(asked: int | None, sent: int) -> None:
    got = body(Sampling(logprobs=asked))
    assert (got["n_probs"], got["post_sampling_probs"]) == (sent, False)


def test_a_bias_is_sent_and_minus_100_bans() -> None:
    sampling = Sampling(logit_bias=((3, -100.0), (4, 100.0), (5, -99.5)))
    assert body(sampling)["logit_bias"] == [[3, False], [4, 100.0], [5, -99.5]]


def test_beside_a_grammar_a_ban_gives_way_where_nothing_else_is_left() -> None:
    sampling = Sampling(logit_bias=((3, -100.0),), ignore_eos=True)
    sent = body(sampling, "start: answer\n")
    assert sent["grammar"] == "%llguidance {}\nstart: answer\n"
    assert sent["logit_bias"] == [[3, -1000.0], [50, -1000.0], [98, -1000.0]]
    assert sent["ignore_eos"] is False


def test_ignoring_the_end_bans_what_llama_does_not_know_as_one() -> None:
    sent = body(Sampling(ignore_eos=True))
    assert sent["ignore_eos"] is True
    assert sent["logit_bias"] == [[50, False], [98, False]]


def test_an_end_that_the_caller_names_ends_the_answer_all_the_same() -> None:
    sent = body(Sampling(ignore_eos=True, stop_token_ids=(98,)))
    assert sent["ignore_eos"] is False
    assert sent["logit_bias"] == [[50, False], [96, False], [97, False]]


def test_a_least_length_is_a_grammar_of_tokens_that_end_nothing() -> None:
    sent = body(Sampling(min_tokens=5, stop_token_ids=(0, 8)))
    assert sent["grammar"] == ("%llguidance {}\nstart: <[1-7,9-49,51-95,99-99]>{5} <[0-99]>*\n")


def test_a_least_length_of_a_bound_answer_is_refused() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        body(Sampling(min_tokens=5), "start: answer\n")
    assert caught.value.param == "min_tokens"


def test_a_stop_inside_a_character_is_refused() -> None:
    body(Sampling(stop_token_ids=(8, 98)))
    with pytest.raises(UnsupportedParameter, match="part of a character") as caught:
        body(Sampling(stop_token_ids=(8, 7)))
    assert caught.value.param == "stop_token_ids"


def test_stops_of_all_kinds_end_the_answer() -> None:
    assert stop_ids(Prompt([1], 1, stop_ids=(8, 98)), TOKENS) == {8, 50, 98}


def test_a_step_is_the_same_request_for_one_of_what_may_come() -> None:
    before = body(Sampling(temperature=0.5, seed=5, logprobs=2), "start: answer\n")
    allowed = bytes((0, 9, 9, 0, 0, 9))
    step = step_body(before, [1, 2, 3], allowed, 1)
    changed = {name for name in step if step[name] != before[name]}
    assert changed == {"prompt", "n_predict", "cache_prompt", "seed", "grammar"}
    assert (step["prompt"], step["n_predict"], step["cache_prompt"]) == ([1, 2, 3], 1, True)
    assert step["grammar"] == "%llguidance {}\nstart: <[1-2,5-5]>\n"
    assert step == step_body(before, [1, 2, 3], allowed, 1)
    assert named(step)["stream"] is False


@given(int64, st.integers(1, 10_000))
def test_every_step_has_a_seed_of_its_own(seed: int, number: int) -> None:
    first: Body = {"seed": to_uint32(seed, 0)}
    seeds = [step_body(first, [], b"\1", each)["seed"] for each in (number, number + 1)]
    assert all(isinstance(each, int) and 0 <= each < 0xFFFFFFFF for each in seeds)
    assert len({first["seed"], *seeds}) == 3
