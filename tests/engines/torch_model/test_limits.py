"""When an answer ends: the model's own ends, the request's, and what `ignore_eos` leaves."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Sampling
from qwen_openai.engines.torch_model.limits import Limits

_IDS = st.frozensets(st.integers(0, 20), max_size=6)


def test_the_models_ends_and_the_requests_end_it() -> None:
    limits = Limits.of(Sampling(stop_token_ids=(7,), min_tokens=3), 50, frozenset({1, 2}), (9,))
    assert limits == Limits(50, frozenset({1, 2, 7, 9}), 3)


def test_ignore_eos_bars_the_models_own_ends_alone() -> None:
    sampling = Sampling(stop_token_ids=(2,), ignore_eos=True)
    limits = Limits.of(sampling, 50, frozenset({1, 2}), (9,))
    assert limits.stop == {1, 2, 9}
    assert limits.barred == {1}


@given(own=_IDS, further=_IDS, asked=_IDS, ignore=st.booleans())
def test_what_is_barred_would_have_ended_it(
    own: frozenset[int], further: frozenset[int], asked: frozenset[int], ignore: bool
) -> None:
    sampling = Sampling(stop_token_ids=tuple(asked), ignore_eos=ignore)
    limits = Limits.of(sampling, 1, own, further)
    assert limits.stop == own | further | asked
    assert limits.barred == (own - further - asked if ignore else frozenset())
