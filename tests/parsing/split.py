"""Cutting a text at any places, for the properties that say the places do not matter."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

_Text = TypeVar("_Text", str, bytes)


def split(text: _Text, cuts: Sequence[int]) -> list[_Text]:
    """The pieces of a text between cuts, in any order and beyond its end too; none is empty."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(places)]
