"""What the numbers and sums can tell."""

import pytest

from tests.upstream.deltas import counted, delta, whole


@pytest.mark.parametrize("wide", [False, True])
def test_every_prefix_of_whole_pieces_counts(wide: bool) -> None:
    for count in range(20):
        assert counted("a", whole("a", count, wide=wide), wide=wide) == count


@pytest.mark.parametrize(
    "text",
    [
        delta("a", 1),
        delta("a", 0) + delta("a", 2),
        delta("a", 0) + delta("a", 0),
        delta("b", 0),
        delta("a", 0)[:-2],
        delta("a", 0).replace("0 ", "0 f"),
    ],
    ids=["lost first", "lost", "repeated", "another's", "half", "garbled"],
)
def test_anything_else_is_told(text: str) -> None:
    with pytest.raises(AssertionError):
        counted("a", text)
