"""Drawn as often as is likely: chi-square over 20,000 draws from a small vocabulary.

Seeds are fixed, so that what passes once passes always; a right sampler fails at one in 10,000.
"""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest
import torch

from qwen_openai.core import Sampling
from qwen_openai.engines.sampling import Picked, Rules, Sampler, pick_all
from tests.engines import plain_sampling

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
DRAWS = 20_000
Value = TypeVar("Value", bound=Hashable)
LOGITS = [1.5, 0.25, -0.5, 2.0, 1.5, -2.0, 0.75, 0.0, 1.0, -1.0, 0.5, -3.0]
PROMPT, ANSWER = [0, 3, 3, 5], [3, 4, 4, 4, 9]

SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(temperature=1.8),
    Sampling(top_k=5),
    Sampling(top_p=0.7),
    Sampling(min_p=0.25),
    Sampling(presence_penalty=1.2),
    Sampling(frequency_penalty=0.7),
    Sampling(presence_penalty=-0.5, frequency_penalty=-0.3),
    Sampling(repetition_penalty=1.4),
    Sampling(repetition_penalty=0.8),
    Sampling(logit_bias=((3, -100.0), (11, 4.0))),
    Sampling(temperature=0.7, top_k=8, top_p=0.8, repetition_penalty=1.05),
    Sampling(temperature=1.5, top_p=0.9, min_p=0.1, frequency_penalty=0.5),
    Sampling(temperature=1.3, top_k=9, min_p=0.05, presence_penalty=0.4, repetition_penalty=1.2),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
def test_first_draws_of_as_many_seeds(sampling: Sampling) -> None:
    """Neighbouring seeds, as people choose them, at one step of an answer that has begun."""
    samplers = [Sampler(replace(sampling, seed=seed), PROMPT, CPU) for seed in range(DRAWS)]
    for sampler in samplers:
        for token in ANSWER:
            sampler.take(token)
    picked = pick_all(torch.tensor([LOGITS] * DRAWS), samplers, [Rules()] * DRAWS)
    values = plain_sampling.changed(LOGITS, sampling, PROMPT, ANSWER)
    _agree(_tokens(picked), plain_sampling.probabilities(values, sampling))


@pytest.mark.parametrize("sampling", [SAMPLINGS[n] for n in (0, 2, 4, 5)], ids=repr)
def test_draws_of_answers_in_one_batch(sampling: Sampling) -> None:
    """100 answers of 200 tokens; and no token tells anything of the next one."""
    samplers = [Sampler(replace(sampling, seed=1000 + n), PROMPT, CPU) for n in range(100)]
    steps = [
        _tokens(pick_all(torch.tensor([LOGITS] * 100), samplers, [Rules()] * 100))
        for _ in range(DRAWS // 100)
    ]
    likely = plain_sampling.probabilities(LOGITS, sampling)
    _agree([token for step in steps for token in step], likely)
    successors = [
        pair for one, other in itertools.pairwise(steps) for pair in zip(one, other, strict=True)
    ]
    neighbours = [pair for step in steps for pair in itertools.pairwise(step)]
    both = {(a, b): likely[a] * likely[b] for a in likely for b in likely}
    _agree(successors, both)
    _agree(neighbours, both)


def test_a_large_vocabulary_is_drawn_from_evenly() -> None:
    """Also where each token has a chance of one in 5,000: no id is preferred."""
    size, rows = 5000, 200
    drawn: list[int] = []
    for first in range(0, 2000, rows):
        samplers = [Sampler(Sampling(seed=first + n), [], CPU) for n in range(rows)]
        drawn += _tokens(pick_all(torch.zeros(rows, size), samplers, [Rules()] * rows))
    _agree([token * 20 // size for token in drawn], dict.fromkeys(range(20), 1 / 20))
    assert len(set(drawn)) == pytest.approx(size * (1 - math.exp(-2000 / size)), abs=100)


@pytest.mark.parametrize(
    "wrong", [Sampling(temperature=1.05), Sampling(top_k=11), Sampling(logit_bias=((3, 0.2),))]
)
def test_the_check_finds_what_is_slightly_wrong(wrong: Sampling) -> None:
    samplers = [Sampler(replace(wrong, seed=seed), [], CPU) for seed in range(DRAWS)]
    picked = pick_all(torch.tensor([LOGITS] * DRAWS), samplers, [Rules()] * DRAWS)
    statistic, critical = _chi_square(
        _tokens(picked), plain_sampling.probabilities(LOGITS, Sampling())
    )
    assert statistic > critical


def _tokens(picked: Sequence[object]) -> list[int]:
    tokens = [one.token for one in picked if isinstance(one, Picked)]
    assert len(tokens) == len(picked)
    return tokens


def _agree(drawn: Sequence[Value], likely: Mapping[Value, float]) -> None:
    statistic, critical = _chi_square(drawn, likely)
    assert statistic <= critical


def _chi_square(drawn: Sequence[Value], likely: Mapping[Value, float]) -> tuple[float, float]:
    """The statistic, and what it exceeds by chance once in 10,000 times."""
    assert math.fsum(likely.values()) == pytest.approx(1)
    counts = Counter(drawn)
    assert counts.keys() <= likely.keys()
    bins: list[tuple[float, float]] = []
    few_expected = few_seen = 0.0
    for value, chance in likely.items():
        expected, seen = chance * len(drawn), float(counts[value])
        # What is rarer than that is no matter of a chi-square alone.
        if expected < 10:
            few_expected, few_seen = few_expected + expected, few_seen + seen
        else:
            bins.append((expected, seen))
    if few_expected >= 10:
        bins.append((few_expected, few_seen))
    statistic = math.fsum((seen - expected) ** 2 / expected for expected, seen in bins)
    # Wilson and Hilferty, 1931, with the normal distribution's quantile of 0.9999.
    freedom = max(len(bins) - 1, 1)
    spread = 2 / (9 * freedom)
    return statistic, freedom * (1 - spread + 3.719 * math.sqrt(spread)) ** 3
