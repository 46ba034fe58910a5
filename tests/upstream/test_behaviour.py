"""How tests ask a mock for a behaviour."""

import pytest

from tests.upstream.behaviour import Behaviour, asked_for, parse


def test_a_text_changes_what_it_names() -> None:
    how = parse("status=429,retry_after=3600,gap=0.5,deltas=7,leak,usage=0,hang=first", Behaviour())
    assert (how.status, how.retry_after, how.gap, how.deltas) == (429, "3600", 0.5, 7)
    assert (how.leak, how.usage, how.hang, how.ending) == (True, False, "first", "done")


@pytest.mark.parametrize("text", ["stattus=429", "hang=1", "status=many", "ending=badly"])
def test_what_it_cannot_mean_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text, Behaviour())


def test_the_first_text_with_the_mark_speaks() -> None:
    base = Behaviour(status=500)
    assert asked_for(["a", "b"], base) is base
    assert asked_for(["a", "hello mock:deltas=3 there", "mock:deltas=4"], base).deltas == 3
    assert asked_for(["mock:deltas=3"], base).status == 500
