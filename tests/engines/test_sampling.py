"""From logits to a token: each rule against plain Python, and against transformers' own."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qwen_openai.core import Sampling
from qwen_openai.engines.sampling import Rules, Sampler
from qwen_openai.errors import EngineFailed

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def row(values: Sequence[float] | Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def pick(
    sampler: Sampler,
    logits: torch.Tensor,
    barred: torch.Tensor | None = None,
    allowed: bytes | None = None,
) -> int:
    return sampler.pick(logits, Rules(barred, allowed)).token


def noise(size: int, seed: int = 0) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(0, 3) for _ in range(size)]


def probabilities(logits: Sequence[float], s: Sampling) -> list[float]:
    """What may be drawn and how likely, by the definitions, one value after another."""
    scaled = [value / s.temperature for value in logits]
    order = sorted(range(len(scaled)), key=lambda n: -scaled[n])
    if s.top_k:
        order = order[: s.top_k]
    top = max(scaled)
    weights = {n: math.exp(scaled[n] - top) for n in order}
    total = sum(weights.values())
    kept: dict[int, float] = {}
    mass = 0.0
    for n in order:
        if kept and mass >= s.top_p:
            break
        kept[n] = weights[n]
        mass += weights[n] / total
    kept = {n: w for n, w in kept.items() if w >= s.min_p * max(kept.values())}
    total = sum(kept.values())
    return [kept.get(n, 0.0) / total for n in range(len(logits))]


def penalised(
    logits: Sequence[float], s: Sampling, prompt: list[int], out: list[int]
) -> list[float]:
    changed = list(logits)
    for n in {*prompt, *out}:
        repeated = changed[n]
        changed[n] = (
            repeated * s.repetition_penalty if repeated < 0 else (repeated / s.repetition_penalty)
        )
    for n, count in Counter(out).items():
        changed[n] -= count * s.frequency_penalty + s.presence_penalty
    return changed


@given(
    prompt=st.lists(st.integers(0, 9), max_size=6),
    repetition=st.sampled_from([1.0, 1.1, 0.7, 2.0]),
    presence=st.sampled_from([0.0, 0.5, -0.3]),
    frequency=st.sampled_from([0.0, 0.8, -0.4]),
    seed=st.integers(0, 99),
)
def test_penalties_value_by_value(
    prompt: list[int], repetition: float, presence: float, frequency: float, seed: int
) -> None:
    sampling = Sampling(
        temperature=0,
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
    )
    sampler = Sampler(sampling, prompt, CPU)
    out: list[int] = []
    for step in range(12):
        logits = noise(10, seed * 100 + step)
        altered = row(logits)
        token = pick(sampler, altered)
        expected = penalised(logits, sampling, prompt, out)
        assert altered.tolist() == pytest.approx(expected, abs=1e-5)
        assert token == int(altered.argmax())
        out.append(token)


def test_penalties_over_a_long_answer() -> None:
    """More distinct tokens than there was room for at first."""
    sampling = Sampling(temperature=0, repetition_penalty=1.3, frequency_penalty=0.1)
    sampler = Sampler(sampling, [1, 2, 2], CPU)
    out: list[int] = []
    for step in range(300):
        logits = noise(500, step)
        altered = row(logits)
        out.append(pick(sampler, altered))
        assert altered.tolist() == pytest.approx(
            penalised(logits, sampling, [1, 2, 2], out[:-1]), abs=1e-4
        )
    assert len(set(out)) > 130


SETTINGS = [
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(temperature=2),
    Sampling(top_k=3),
    Sampling(top_p=0.6),
    Sampling(top_p=0),
    Sampling(min_p=0.2),
    Sampling(temperature=1.5, top_k=5, top_p=0.8),
    Sampling(temperature=0.9, top_k=6, top_p=0.95, min_p=0.1),
    Sampling(temperature=1.2, top_p=0.9, min_p=0.3),
    Sampling(top_k=100, top_p=0.5),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=repr)
def test_draws_as_often_as_is_likely(sampling: Sampling) -> None:
    logits = noise(8, 5)
    sampler = Sampler(replace(sampling, seed=1), [], CPU)
    draws = 3000
    drawn = Counter(pick(sampler, row(logits)) for _ in range(draws))
    for n, likely in enumerate(probabilities(logits, sampling)):
        if likely == 0:
            assert drawn[n] == 0
        else:
            spread = math.sqrt(draws * likely * (1 - likely))
            assert abs(drawn[n] - draws * likely) <= 5 * spread + 1e-9


@pytest.mark.parametrize("sampling", SETTINGS, ids=repr)
@pytest.mark.parametrize("size", [40, 3000])
def test_the_candidates_are_those_of_transformers(sampling: Sampling, size: int) -> None:
    """Both ways to a nucleus: among the likeliest (3000 > 1024 tokens), and by sorting all."""
    for scale in (0.1, 1.0):
        logits = [scale * value for value in noise(size, size)]
        steps = LogitsProcessorList()
        if sampling.temperature != 1:
            steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            steps.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            steps.append(TopPLogitsWarper(float(sampling.top_p)))
        if sampling.min_p:
            steps.append(MinPLogitsWarper(sampling.min_p))
        theirs = steps(torch.LongTensor([[]]), row([logits]))[0].softmax(0)
        ours = torch.tensor(probabilities(logits, sampling))
        assert torch.allclose(theirs, ours, atol=1e-5)
        sampler = Sampler(sampling, [], CPU)
        allowed = set(theirs.nonzero().flatten().tolist())
        assert all(pick(sampler, row(logits)) in allowed for _ in range(20))


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    prompt = [3, 3, 7, 1]
    logits = row(noise(30, 9))
    theirs = RepetitionPenaltyLogitsProcessor(1.1)(torch.tensor([prompt]), logits.clone()[None])[0]
    Sampler(Sampling(temperature=0, repetition_penalty=1.1), prompt, CPU).pick(logits)
    assert torch.equal(logits, theirs)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(top_k=1, seed=3),
        *(Sampling(temperature=low) for low in (5e-324, 1e-40, 1e-38, 1e-10, 9.9e-4)),
        Sampling(temperature=1e-40, top_k=5, top_p=0.5, min_p=0.2),
    ],
    ids=repr,
)
def test_greedy_is_the_best(sampling: Sampling) -> None:
    sampler = Sampler(sampling, [], CPU)
    logits = noise(50, 2)
    best = max(range(50), key=logits.__getitem__)
    assert [pick(sampler, row(logits)) for _ in range(5)] == [best] * 5


def draws(seed: int | None, count: int = 30) -> list[int]:
    sampler = Sampler(Sampling(seed=seed), [], CPU)
    return [pick(sampler, row([0.0] * 100)) for _ in range(count)]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_a_seed_repeats_itself(seed: int) -> None:
    assert draws(seed) == draws(seed)
    assert draws(seed) != draws(seed // 2 + 5)


def test_without_a_seed_each_answer_is_its_own() -> None:
    assert draws(None) != draws(None)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    draws(7)
    draws(None)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = draws(7)
        torch.manual_seed(2)
        assert draws(7) == first


def test_two_answers_do_not_influence_each_other() -> None:
    one, other = (Sampler(Sampling(seed=s, frequency_penalty=1), [], CPU) for s in (1, 2))
    mixed = [(pick(one, row([0.0] * 50)), pick(other, row([0.0] * 50))) for _ in range(20)]
    alone = Sampler(Sampling(seed=1, frequency_penalty=1), [], CPU)
    assert [pick(alone, row([0.0] * 50)) for _ in range(20)] == [first for first, _ in mixed]


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(), Sampling(top_p=0.5)])
def test_barred_tokens_are_not_picked(sampling: Sampling) -> None:
    sampler = Sampler(sampling, [], CPU)
    logits = [9.0, 8.0, 1.0, 0.5]
    assert all(pick(sampler, row(logits), torch.tensor([0, 1])) in (2, 3) for _ in range(20))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(),
        Sampling(top_k=5),
        Sampling(top_p=0.5),
        Sampling(min_p=1),
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [20, 3000])
def test_what_is_no_number_is_an_error(sampling: Sampling, bad: float, size: int) -> None:
    logits = noise(size)
    logits[size // 2] = bad
    with pytest.raises(EngineFailed, match="no numbers"):
        Sampler(sampling, [], CPU).pick(row(logits))


@given(
    temperature=st.floats(0, 100),
    top_p=st.floats(0, 1),
    top_k=st.integers(0, 2**63 - 1),
    min_p=st.floats(0, 1),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
    repetition=st.floats(0.01, 100),
    scale=st.sampled_from([0.0, 1.0, 1e4]),
    barred=st.booleans(),
)
@example(9.9e-4, 0, 0, 1, 2, 2, 100, 1e4, True)
@example(1e-3, 0, 0, 1, -2, -2, 0.01, 1e4, True)
@example(1e-3, 1, 0, 0, -2, -2, 0.01, 1e4, True)
def test_no_allowed_value_makes_numbers_none(
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    presence: float,
    frequency: float,
    repetition: float,
    scale: float,
    barred: bool,
) -> None:
    """All that `arguments` and the protocol let through; float16 ends at 65,504."""
    sampling = Sampling(temperature, top_p, top_k, min_p, presence, frequency, repetition, seed=1)
    sampler = Sampler(sampling, [1, 2], CPU)
    ends = torch.tensor([3, 4]) if barred else None
    for step in range(4):
        logits = row([scale * value for value in noise(12, step)])
        token = pick(sampler, logits, ends)
        assert 0 <= token < 12
        assert not barred or token not in (3, 4)


def test_no_token_left_is_an_error() -> None:
    with pytest.raises(EngineFailed, match="min_new_tokens"):
        Sampler(Sampling(), [], CPU).pick(row([1.0, 2.0]), Rules(torch.tensor([0, 1])))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits = row(noise(64)).to(dtype)
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=1.1), range(64), CPU)
    kept = logits.clone()
    token = pick(sampler, logits)
    assert torch.equal(logits, kept)
    assert token == max(range(64), key=kept.tolist().__getitem__)
