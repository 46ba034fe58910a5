"""A request for completions to jobs: one for each answer, numbered prompt by prompt."""

import contextlib
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.adapter.completions import completion_jobs
from qwen_openai.adapter.limits import Limits
from qwen_openai.core import Job, RawPrompt
from qwen_openai.errors import InvalidRequest, ModelNotFound, UnsupportedParameter
from qwen_openai.families import family_named
from qwen_openai.protocol.completions import HONOURED, parse_completion

CODER = family_named("qwen2.5-coder")
PLAIN = family_named("qwen2.5")


def jobs(**body: object) -> tuple[Job, ...]:
    request = parse_completion(orjson.dumps({"model": "m", "prompt": "a", **body}))
    return completion_jobs(request, id="x", family=CODER, limits=Limits(max_n=8))


def test_every_answer_is_a_job() -> None:
    made = jobs(prompt=["a", "b"], n=2, best_of=3)
    assert [job.choice for job in made] == list(range(6))
    assert {job.n for job in made} == {3}
    assert [job.prompt for job in made] == [RawPrompt("a")] * 3 + [RawPrompt("b")] * 3
    assert made[5] == replace(made[0], choice=5, prompt=RawPrompt("b"))


def test_what_says_nothing_gets_sixteen_tokens_and_the_models_sampling() -> None:
    (job,) = jobs()
    assert job.sampling.max_tokens == 16
    assert job.sampling.repetition_penalty == CODER.sampling.repetition_penalty
    assert (job.sampling.logprobs, job.thinks, job.tools, job.messages) == (None, False, (), ())


def test_the_best_is_told_by_log_probabilities() -> None:
    assert jobs(best_of=2)[0].sampling.logprobs == 0
    assert jobs(best_of=2, n=2)[0].sampling.logprobs is None
    assert jobs(best_of=2, logprobs=3)[0].sampling.logprobs == 3
    request = parse_completion(orjson.dumps({"prompt": "a", "best_of": 2}))
    poor = frozenset({"logprobs"})
    with pytest.raises(UnsupportedParameter) as refused:
        completion_jobs(request, id="x", family=CODER, limits=Limits(), refuses=poor)
    assert refused.value.param == "best_of"


def test_a_gap_is_filled_by_models_that_can() -> None:
    assert jobs(suffix="b")[0].prompt == RawPrompt("a", "b")
    assert jobs(suffix="")[0].prompt == RawPrompt("a")
    request = parse_completion(orjson.dumps({"prompt": "a", "suffix": "b"}))
    with pytest.raises(UnsupportedParameter) as refused:
        completion_jobs(request, id="x", family=PLAIN, limits=Limits())
    assert refused.value.param == "suffix"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 9}, "n"),
        ({"n": 9, "best_of": 10}, "n"),
        ({"best_of": 9}, "best_of"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"prompt": [[1], [2], [3]], "n": 3}, "prompt"),
        ({"response_format": {"type": "json_object"}, "min_tokens": 1}, "min_tokens"),
    ],
)
def test_what_is_too_much_or_contradicts_itself(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        jobs(**body)
    assert refused.value.param == param


def test_a_format_is_a_grammar() -> None:
    (job,) = jobs(structured_outputs={"choice": ["yes", "no"]})
    assert job.grammar is not None
    assert job.grammar.param == "structured_outputs"
    assert jobs(response_format={"type": "text"})[0].grammar is None


scalars = st.none() | st.booleans() | st.integers(-2, 30) | st.floats(-3, 3) | st.text(max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
names = st.sampled_from([row.name for row in HONOURED]) | st.text(max_size=6)


@given(st.dictionaries(names, values, max_size=6))
def test_any_body_is_jobs_or_a_refusal(body: dict[str, object]) -> None:
    with contextlib.suppress(InvalidRequest, ModelNotFound):
        assert jobs(**{"prompt": "a", **body})
