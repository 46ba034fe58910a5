"""Bias, bans, masks and logprobs: each against its definition, and none where none is asked for."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Sampling
from qwen_openai.engines.sampling import Picked, Rules, Sampler
from qwen_openai.errors import EngineFailed
from tests.engines.test_sampling import CPU, SETTINGS, noise, penalised, pick, probabilities, row

pytestmark = pytest.mark.usefixtures("one_thread")


@given(
    bias=st.dictionaries(st.integers(0, 9), st.floats(-99, 100), max_size=5),
    repetition=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 99),
)
def test_bias_value_by_value(bias: dict[int, float], repetition: float, seed: int) -> None:
    """Added to what the penalties leave."""
    sampling = Sampling(
        temperature=0, repetition_penalty=repetition, logit_bias=tuple(bias.items())
    )
    sampler = Sampler(sampling, [1, 2], CPU)
    out: list[int] = []
    for step in range(6):
        logits = noise(10, seed * 10 + step)
        altered = row(logits)
        out.append(pick(sampler, altered))
        expected = penalised(logits, sampling, [1, 2], out[:-1])
        for token, value in bias.items():
            expected[token] += value
        assert altered.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 1.0, 2.0])
def test_a_bias_of_minus_100_bans_and_of_100_forces(temperature: float) -> None:
    """However likely: a logit of 300 less 100 would still be the likeliest."""
    logits = [300.0, 1.0, 0.0, 2.0]
    banned = Sampler(Sampling(temperature=temperature, logit_bias=((0, -100.0),)), [], CPU)
    assert all(pick(banned, row(logits)) != 0 for _ in range(20))
    forced = Sampler(Sampling(temperature=temperature, logit_bias=((2, 100.0),)), [], CPU)
    assert {pick(forced, row([3.0, 1.0, 0.0, 2.0])) for _ in range(20)} == {2}


ALLOWED = bytes([0, 200, 0, 200, 200, 0, 0, 200])


@pytest.mark.parametrize("sampling", SETTINGS, ids=repr)
def test_a_mask_takes_the_others_out_before_all_filters(sampling: Sampling) -> None:
    """As if the vocabulary had no other tokens: top_k counts only those, top_p sums only those."""
    logits = noise(8, 5)
    left = [n for n, may in enumerate(ALLOWED) if may]
    likely = probabilities([logits[n] for n in left], sampling)
    sampler = Sampler(replace(sampling, seed=1), [], CPU)
    draws = 2000
    drawn = Counter(pick(sampler, row(logits), allowed=ALLOWED) for _ in range(draws))
    assert drawn.keys() <= set(left)
    for n, chance in zip(left, likely, strict=True):
        spread = math.sqrt(draws * chance * (1 - chance))
        assert abs(drawn[n] - draws * chance) <= 5 * spread + 1e-9


def test_a_mask_value_by_value() -> None:
    logits = noise(8, 3)
    altered = row(logits)
    pick(Sampler(Sampling(temperature=0), [], CPU), altered, allowed=ALLOWED)
    assert altered.tolist() == pytest.approx(
        [value if may else -math.inf for value, may in zip(logits, ALLOWED, strict=True)]
    )


@pytest.mark.parametrize("size", [6, 8, 12])
def test_a_row_may_be_shorter_or_longer_than_its_mask(size: int) -> None:
    sampler = Sampler(Sampling(temperature=0), [], CPU)
    rising = [float(n) for n in range(size)]
    assert pick(sampler, row(rising), allowed=ALLOWED) == (4 if size == 6 else 7)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bans_and_bars_give_way_to_a_grammar_that_leaves_nothing_else(temperature: float) -> None:
    sampling = Sampling(temperature=temperature, logit_bias=((3, -100.0),), seed=1)
    sampler = Sampler(sampling, [], CPU)
    logits, only = noise(8, 5), bytes([0, 0, 0, 200, 0, 0, 0, 0])
    assert pick(sampler, row(logits), allowed=only) == 3
    assert pick(sampler, row(logits), torch.tensor([3]), only) == 3
    both = bytes([0, 0, 0, 200, 200, 0, 0, 0])
    assert {pick(sampler, row(logits), torch.tensor([4]), both) for _ in range(9)} <= {3, 4}
    assert {pick(sampler, row(logits), allowed=both) for _ in range(9)} == {4}
    free = Sampler(replace(sampling, logit_bias=()), [], CPU)
    assert {pick(free, row(logits), torch.tensor([4]), both) for _ in range(9)} == {3}


def test_a_mask_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(EngineFailed):
        pick(Sampler(Sampling(), [], CPU), row(noise(8)), allowed=bytes(8))


@pytest.mark.parametrize("sampling", SETTINGS, ids=repr)
@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_logprobs_are_the_models_own(sampling: Sampling, count: int) -> None:
    """Whatever else is asked for, they are a plain log-softmax of the row as it came."""
    asked = replace(
        sampling,
        seed=3,
        logprobs=count,
        repetition_penalty=1.3,
        presence_penalty=0.5,
        logit_bias=((2, 4.0), (5, -100.0)),
    )
    sampler = Sampler(asked, [1, 2], CPU)
    for step in range(4):
        logits = noise(8, step)
        total = math.log(math.fsum(math.exp(value) for value in logits))
        plain = {n: value - total for n, value in enumerate(logits)}
        picked = sampler.pick(row(logits), Rules(torch.tensor([0]), ALLOWED))
        assert picked.logprob == pytest.approx(plain[picked.token], abs=1e-5)
        likeliest = sorted(plain, key=lambda n: -plain[n])[:count]
        assert [token for token, _ in picked.top] == likeliest
        assert [value for _, value in picked.top] == pytest.approx(
            [plain[n] for n in likeliest], abs=1e-5
        )


@pytest.mark.parametrize("sampling", SETTINGS, ids=repr)
def test_what_is_not_asked_for_changes_nothing(sampling: Sampling) -> None:
    """The same tokens with logprobs as without, with a bias of 0 and with a mask of all tokens."""
    ways: list[tuple[Sampling, Rules]] = [
        (sampling, Rules()),
        (replace(sampling, logprobs=3), Rules()),
        (replace(sampling, logit_bias=((1, 0.0),)), Rules()),
        (sampling, Rules(None, bytes([200]) * 40)),
    ]
    samplers = [(Sampler(replace(way, seed=9), [], CPU), rules) for way, rules in ways]
    for step in range(30):
        logits = noise(40, step)
        assert len({sampler.pick(row(logits), rules).token for sampler, rules in samplers}) == 1


def test_a_token_without_a_chance_has_a_logprob_that_json_can_say() -> None:
    sampler = Sampler(Sampling(temperature=0, logprobs=2), [], CPU)
    picked = sampler.pick(row([1.0, -math.inf]))
    assert picked == Picked(0, 0.0, ((0, 0.0), (1, -9999.0)))


def test_logprobs_of_values_that_are_no_numbers_are_an_error() -> None:
    """Behind a mask that hides them, too."""
    sampler = Sampler(Sampling(temperature=0, logprobs=0), [], CPU)
    with pytest.raises(EngineFailed, match="no numbers"):
        sampler.pick(row([1.0, math.nan]), Rules(None, bytes([200, 0])))
