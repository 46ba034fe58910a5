"""A whole batch at once: each row against the definitions, and nobody notices the others."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_openai.core import Sampling
from qwen_openai.engines.sampling import Picked, Rules, Sampler, pick_all
from qwen_openai.engines.torch_model.candidates import weigh
from qwen_openai.errors import EngineFailed
from tests.engines import plain_sampling

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIZE = 24
_TOKEN = st.integers(0, SIZE - 1)


@dataclass
class Request:
    """An answer on its way, with all that the definitions need to know of it."""

    sampling: Sampling
    prompt: list[int]
    answer: list[int]
    barred: list[int] = field(default_factory=list)
    allowed: bytes | None = None

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.sampling, self.prompt, CPU)
        for token in self.answer:
            self.sampler.take(token)

    def rules(self) -> Rules:
        return Rules(torch.tensor(self.barred) if self.barred else None, self.allowed)

    def changed(self, logits: Sequence[float]) -> list[float]:
        return plain_sampling.changed(
            logits, self.sampling, self.prompt, self.answer, self.barred, self.allowed
        )


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.4, 1.0, 1.7]),
    top_p=st.sampled_from([1.0, 1.0, 0.0, 0.5, 0.83, 0.97]),
    top_k=st.sampled_from([0, 0, 1, 2, 7, 20, 500]),
    min_p=st.sampled_from([0.0, 0.0, 0.07, 0.4, 1.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.6, -1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.3, -0.2]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3, 0.8]),
    seed=st.integers(-(2**63), 2**63 - 1),
    logit_bias=st.sampled_from([(), (), ((1, 2.5), (3, -100.0)), ((0, -1.0), (23, 100.0))]),
    logprobs=st.sampled_from([None, None, 0, 2, 20]),
)
REQUESTS = st.builds(
    Request,
    sampling=SAMPLINGS,
    prompt=st.lists(_TOKEN, max_size=8),
    answer=st.lists(_TOKEN, max_size=8),
    barred=st.lists(_TOKEN, max_size=3, unique=True),
    allowed=st.none() | st.binary(min_size=4, max_size=SIZE + 4).filter(lambda mask: any(mask[:4])),
)
# In steps of an eighth, as half precision has them: many are equal.
LOGITS = st.lists(st.integers(-80, 80).map(lambda n: n / 8), min_size=SIZE, max_size=SIZE)


@settings(max_examples=150, deadline=None)
@given(batch=st.lists(st.tuples(REQUESTS, LOGITS), min_size=1, max_size=9))
def test_each_row_of_a_batch_is_as_defined(batch: list[tuple[Request, list[float]]]) -> None:
    """Values, candidates, probabilities, tokens and logprobs, row by row."""
    requests = [request for request, _ in batch]
    rows = torch.tensor([logits for _, logits in batch])
    rules = [request.rules() for request in requests]
    picked = pick_all(rows, [request.sampler for request in requests], rules)
    likely = _probabilities(rows, requests)
    for n, (request, logits) in enumerate(batch):
        values = rows[n].tolist()
        assert values == pytest.approx(request.changed(logits), rel=1e-5, abs=1e-5)
        one = picked[n]
        assert isinstance(one, Picked)
        if n in likely:
            # On values as ours are: what is rounded one way or another is no matter here.
            near = [
                plain_sampling.probabilities(values, request.sampling, slack)
                for slack in (0, 1e-6, -1e-6)
            ]
            assert any(likely[n] == pytest.approx(way, rel=1e-4, abs=1e-30) for way in near)
            assert one.token in likely[n]
        else:
            assert one.token == max(range(SIZE), key=values.__getitem__)
        _check_logprobs(one, logits, request.sampling.logprobs)


def _probabilities(rows: torch.Tensor, requests: list[Request]) -> dict[int, dict[int, float]]:
    """What `weigh` makes of the changed rows that are not greedy."""
    drawn = {n: one.sampling for n, one in enumerate(requests) if one.sampler.chance is not None}
    likely: dict[int, dict[int, float]] = {}
    for some in weigh(rows, drawn):
        ids = some.ids.expand_as(some.weights).tolist()
        for n, names, weights in zip(some.rows, ids, some.weights.tolist(), strict=True):
            assert max(weights) == 1
            total = math.fsum(weights)
            pairs = zip(names, weights, strict=True)
            likely[n] = {name: weight / total for name, weight in pairs if weight}
    assert likely.keys() == drawn.keys()
    return likely


def _check_logprobs(picked: Picked, logits: list[float], count: int | None) -> None:
    if count is None:
        assert picked == Picked(picked.token)
        return
    own = plain_sampling.logprobs(logits)
    likeliest = sorted(range(SIZE), key=lambda n: -logits[n])[:count]
    assert picked.logprob == pytest.approx(own[picked.token], abs=1e-5)
    assert [token for token, _ in picked.top] == likeliest
    assert [value for _, value in picked.top] == pytest.approx(
        [own[n] for n in likeliest], abs=1e-5
    )


WAYS = [
    Sampling(temperature=0),
    Sampling(temperature=0, presence_penalty=0.5, repetition_penalty=1.2, logprobs=2),
    Sampling(),
    Sampling(temperature=1.3, min_p=0.05),
    Sampling(top_p=0.9),
    Sampling(temperature=3, top_p=0.99),
    Sampling(temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.05),
    Sampling(top_k=100, frequency_penalty=0.4, logprobs=5),
    Sampling(top_k=64, min_p=0.1, logit_bias=((5, 4.0), (6, -100.0))),
]


def _logits(seed: int, size: int) -> torch.Tensor:
    """Of half precision: rows of a vocabulary have many equal values, also at every limit."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, generator=generator) * 3).bfloat16()


def _alone(sampling: Sampling, size: int, steps: int) -> list[Picked]:
    sampler = Sampler(sampling, [1, 2, 3], CPU)
    return [sampler.pick(_logits(step, size), _rules(step, size)) for step in range(steps)]


def _rules(step: int, size: int) -> Rules:
    """Each step has its own: a mask now and then, a barred token now and then."""
    mask = bytes(itertools.islice(itertools.cycle([1, 1, 0]), size)) if step % 3 == 2 else None
    return Rules(torch.tensor([step, size - 1]) if step % 2 else None, mask)


@pytest.mark.parametrize("size", [50, 3000])
@pytest.mark.parametrize("sampling", WAYS, ids=repr)
def test_the_same_tokens_alone_and_in_any_company(sampling: Sampling, size: int) -> None:
    """Companions of all kinds come and go, and the row is now here and now there."""
    seeded = replace(sampling, seed=11)
    expected = _alone(seeded, size, 12)
    chance = random.Random(size)
    sampler = Sampler(seeded, [1, 2, 3], CPU)
    company: list[Sampler] = []
    for step, alone in enumerate(expected):
        company = [one for one in company if chance.random() < 0.7]
        for _ in range(chance.randrange(6)):
            company.append(
                Sampler(replace(chance.choice(WAYS), seed=chance.randrange(99)), [4], CPU)
            )
        place = chance.randrange(len(company) + 1)
        samplers = [*company[:place], sampler, *company[place:]]
        rows = [_logits(chance.randrange(10**6), size) for _ in samplers]
        rules = [_rules(chance.randrange(12), size) for _ in samplers]
        rows[place], rules[place] = _logits(step, size), _rules(step, size)
        picked = pick_all(torch.stack(rows), samplers, rules)[place]
        assert isinstance(picked, Picked)
        assert picked.token == alone.token
        assert picked.logprob == pytest.approx(alone.logprob, abs=1e-5)
        assert [token for token, _ in picked.top] == [token for token, _ in alone.top]


@pytest.mark.parametrize("sampling", WAYS, ids=repr)
def test_what_others_ask_for_changes_no_seeded_row(sampling: Sampling) -> None:
    """Equal requests in one batch get equal tokens, whatever stands between them."""
    logits = _logits(3, 2000)
    seeded = replace(sampling, seed=5)
    mixed = [each for way in WAYS for each in (replace(way, seed=1), seeded)]
    picked = pick_all(
        logits.expand(len(mixed), -1),
        [Sampler(each, [9], CPU) for each in mixed],
        [Rules()] * len(mixed),
    )
    assert len({one.token for one in picked[1::2] if isinstance(one, Picked)}) == 1


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [30, 2000])
def test_a_row_without_numbers_fails_alone(bad: float, size: int) -> None:
    """-inf everywhere, one of the others anywhere."""
    samplers = [Sampler(replace(way, seed=2), [1], CPU) for way in WAYS]
    good = torch.stack([_logits(n, size).float() for n in range(len(WAYS))])
    alone = pick_all(good.clone(), samplers, [Rules()] * len(WAYS))
    for broken in range(len(WAYS)):
        rows = good.clone()
        if bad == -math.inf:
            rows[broken] = bad
        else:
            rows[broken, size // 2] = bad
        samplers = [Sampler(replace(way, seed=2), [1], CPU) for way in WAYS]
        picked = pick_all(rows, samplers, [Rules()] * len(WAYS))
        assert isinstance(picked[broken], EngineFailed)
        others = [n for n in range(len(WAYS)) if n != broken]
        assert [picked[n] for n in others] == [alone[n] for n in others]


def test_a_failed_row_remembers_no_token() -> None:
    sampler = Sampler(Sampling(temperature=0, presence_penalty=2), [], CPU)
    (failed,) = pick_all(torch.tensor([[1.0, math.nan]]), [sampler], [Rules()])
    assert isinstance(failed, EngineFailed)
    assert sampler.pick(torch.tensor([1.0, 0.5])).token == 0
    assert sampler.pick(torch.tensor([1.0, 0.5])).token == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    rows = torch.stack([_logits(n, 500) for n in range(len(WAYS))]).to(dtype)
    kept = rows.clone()
    free = [Rules()] * len(WAYS)

    def samplers() -> list[Sampler]:
        return [Sampler(replace(way, seed=2), [1], CPU) for way in WAYS]

    assert pick_all(rows, samplers(), free) == pick_all(rows.float(), samplers(), free)
    assert torch.equal(rows, kept)


def test_masks_of_neighbours_and_of_others() -> None:
    """Longer and shorter than a row; rows without one lie between, or none does."""
    logits = torch.arange(5.0).repeat(5, 1)
    masks = [None, b"\1\1", None, b"\1\0\0\0\0\1\1", b"\1\1\1\1\0"]
    expected = [4, 1, 4, 0, 3]
    for some in ([0, 1, 2, 3, 4], [1], [3, 4], [0, 3, 4], [1, 4]):
        samplers = [Sampler(Sampling(temperature=0), [], CPU) for _ in some]
        picked = pick_all(logits[some], samplers, [Rules(None, masks[n]) for n in some])
        assert picked == [Picked(expected[n]) for n in some]


def test_no_rows_are_no_tokens() -> None:
    assert pick_all(torch.empty(0, 8), [], []) == []


def test_rows_and_samplers_must_match() -> None:
    with pytest.raises(ValueError, match="for each answer"):
        pick_all(torch.zeros(2, 8), [Sampler(Sampling(), [], CPU)], [Rules()])
