"""Sampling: every parameter arrives, what is left out is the family's."""

from qwen_openai.adapter.sampling import sampling_of
from qwen_openai.core import Sampling
from qwen_openai.families import family_named
from tests.protocol.bodies import parsed

FAMILY = family_named("qwen3.5")


def sampling(*, thinks: bool = False, **changes: object) -> Sampling:
    return sampling_of(parsed(**changes), FAMILY, thinks=thinks)


def test_defaults_are_those_of_answers_with_thoughts_or_without() -> None:
    assert sampling() == Sampling(0.7, 0.8, 20, presence_penalty=1.5)
    assert sampling(thinks=True) == Sampling(1.0, 0.95, 20, presence_penalty=1.5)
    assert sampling(presence_penalty=0).presence_penalty == 0


def test_what_ends_an_answer_arrives() -> None:
    made = sampling(
        stop="x",
        include_stop_str_in_output=True,
        stop_token_ids=[3, 1, 3],
        ignore_eos=True,
        min_tokens=2,
    )
    assert made.stop == ("x",)
    assert made.include_stop
    assert made.stop_token_ids == (3, 1)
    assert made.ignore_eos
    assert made.min_tokens == 2


def test_biases_are_of_token_numbers() -> None:
    assert sampling(logit_bias={"7": -100, "0": 1.5}).logit_bias == ((7, -100.0), (0, 1.5))
    assert sampling(logit_bias={}).logit_bias == ()


def test_logprobs() -> None:
    assert sampling().logprobs is None
    assert sampling(logprobs=False).logprobs is None
    assert sampling(logprobs=True).logprobs == 0
    assert sampling(logprobs=True, top_logprobs=5).logprobs == 5
