"""The guard: any split of a text gives the same, and what has left never comes back."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_openai.errors import EngineFailed
from qwen_openai.grammars import build
from qwen_openai.grammars.guard import Guard

RULES = build.json_schema(
    {"type": "object", "properties": {"é": {"enum": ["ü", "😀"]}}, "required": ["é"]}
)


@given(st.lists(st.integers(0, 11)))
@settings(deadline=None)
def test_the_split_of_a_text_does_not_matter(cuts: list[int]) -> None:
    text = '{"é": "😀"}'
    ends = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    guard = Guard(RULES)
    for start, end in pairwise(ends):
        assert not guard.is_complete
        assert guard.feed("")
        assert guard.feed(text[start:end])
    assert guard.is_complete


def test_what_left_stays_out() -> None:
    guard = Guard(RULES)
    assert guard.feed('{"é"')
    assert not guard.feed("x")
    assert not guard.feed("")
    assert not guard.feed(': "ü"}')
    assert not guard.is_complete


def test_nothing_may_follow_what_is_complete() -> None:
    guard = Guard(build.json_schema({"type": "boolean"}))
    assert guard.feed("true")
    assert guard.is_complete
    assert not guard.feed("\n")
    assert not guard.is_complete


def test_a_fresh_one_begins_anew() -> None:
    guard = Guard(build.choice(["ab", "ac"]))
    twin = guard.fresh()
    assert guard.feed("ab")
    assert twin.feed("ac")
    assert guard.is_complete
    assert twin.is_complete
    assert not guard.fresh().is_complete


def test_a_lone_surrogate_has_left() -> None:
    assert not Guard(build.choice(["é"])).feed("\ud800")


def test_a_matcher_at_its_limits_counts_as_left() -> None:
    guard = Guard(build.regex(".*(a|b).{1000}c"))
    assert not guard.feed("ab" * 20_000)
    assert not guard.is_complete


def test_rules_that_do_not_compile_are_the_gateways_failure() -> None:
    with pytest.raises(EngineFailed):
        Guard("answer: nothing")
