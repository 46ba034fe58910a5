"""Text of foreign models: pieces of what grows, and tokens counted without doing it all again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import Message
from qwen_openai.engines.qwen_chat.foreign_text import Pieces, PromptCounter, Tally
from qwen_openai.prompting.bpe import TooLong
from tests.engines.qwen_chat.original import Letters


@given(st.lists(st.text(max_size=30)))
def test_pieces_of_a_growing_text_add_up(parts: list[str]) -> None:
    pieces, whole, seen = Pieces(), "", ""
    for part in parts:
        whole += part
        seen += pieces.feed(whole)
    assert seen == whole.rstrip("\ufffd")


@given(st.lists(st.text(max_size=2000), max_size=8), st.integers(1, 3000))
def test_a_tally_is_what_the_whole_text_counts(parts: list[str], limit: int) -> None:
    class Words:
        def encode(self, text: str) -> list[int]:
            return [0] * len(text)

    tally = Tally(Words(), limit)
    added = [tally.add(part) for part in parts]
    assert sum(added) == tally.total == min(len("".join(parts)), limit)


def test_a_long_answer_is_counted_in_pieces() -> None:
    longest = 0

    class Words:
        def encode(self, text: str) -> list[int]:
            nonlocal longest
            longest = max(longest, len(text))
            return [0] * len(text.split())

    tally = Tally(Words(), 10**6)
    for number in range(3000):
        tally.add(f" word{number}")
    assert tally.total == 3000
    assert longest < 1100


def test_a_prompt_over_its_limit_is_not_counted_to_its_end() -> None:
    class Counted(Letters):
        seen: tuple[str, ...] = ()

        def encode(
            self, text: str, allowed_special: object = "all", disallowed_special: object = ()
        ) -> list[int]:
            self.seen += (text,)
            return super().encode(text, allowed_special, disallowed_special)

    messages = [Message("user", f"question {number}") for number in range(9)]
    whole = len(PromptCounter(Letters()).render(messages))
    assert len(PromptCounter(Letters()).render_within(messages, whole)) == whole
    with pytest.raises(TooLong):
        PromptCounter(Letters()).render_within(messages, whole - 1)
    counted = Counted()
    with pytest.raises(TooLong):
        PromptCounter(counted).render_within(messages, 60)
    assert "question 0" in counted.seen
    assert "question 8" not in counted.seen
