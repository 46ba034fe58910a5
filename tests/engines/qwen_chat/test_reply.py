"""An answer while it grows: what a stream shows, wherever tokens part the text."""

from collections.abc import Generator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import FinishReason
from qwen_openai.engines.qwen_chat.reply import ReplyStream
from qwen_openai.engines.torch_model.spelling import Piece


def stream(
    texts: Sequence[str], stops: tuple[str, ...] = (), finish: FinishReason = "length"
) -> ReplyStream:
    """An answer of ``texts``, one a token, behind a prompt of two pieces."""

    def steps() -> Generator[Piece, None, None]:
        yield Piece()
        yield Piece()
        for number, text in enumerate(texts):
            yield Piece(number, text, finish if number + 1 == len(texts) else None)

    return ReplyStream(steps(), stops, prompt_tokens=9, dropped_pairs=1)


@given(
    texts=st.lists(st.text("abc", max_size=3), min_size=1, max_size=8),
    stops=st.lists(st.text("abc", min_size=1, max_size=3), max_size=2),
)
def test_the_last_value_is_the_text_up_to_the_first_stop_word(
    texts: list[str], stops: list[str]
) -> None:
    whole = "".join(texts)
    # The word that is complete first; of several, the longest.
    ends = [(whole.index(stop) + len(stop), -len(stop)) for stop in stops if stop in whole]
    expected = whole[: sum(min(ends))] if ends else whole
    answer = stream(texts, tuple(stops))
    values = list(answer)
    assert values[-1] == answer.text == expected
    assert all(after.startswith(before) for before, after in pairwise(values))
    assert answer.finish_reason == ("stop" if ends else "length")
    assert len(values) in (answer.completion_tokens, answer.completion_tokens - 1)


def test_a_value_for_each_token_but_a_silent_last_one() -> None:
    assert list(stream(["a", "", "b", ""], finish="stop")) == ["a", "a", "ab"]
    assert list(stream(["", "b"])) == ["", "b"]
    assert list(stream([""], finish="stop")) == [""]


def test_what_could_have_become_a_stop_word_is_shown_at_the_end() -> None:
    assert list(stream(["a", "EN", "x"], ("END",))) == ["a", "a", "aENx"]
    assert list(stream(["a", "EN"], ("END",))) == ["a", "aEN"]


def test_a_reply_has_what_the_stream_had() -> None:
    reply = stream(["a", "bX", "c"], ("X",)).drain()
    assert reply == "ab"
    assert (reply.finish_reason, reply.token_ids, reply.completion_tokens) == ("stop", (0, 1), 2)
    assert (reply.prompt_tokens, reply.dropped_pairs) == (9, 1)


def test_a_stream_that_was_closed_gives_no_reply() -> None:
    answer = stream(["a", "b"])
    assert next(answer) == "a"
    answer.close()
    assert list(answer) == []
    with pytest.raises(ValueError, match="closed before"):
        answer.drain()
