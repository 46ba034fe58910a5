"""The tokens of an answer to pieces of text, and what is told of each."""

from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from qwen_openai.core import TokenLogprob
from qwen_openai.engines.sampling import Picked
from qwen_openai.engines.torch_model.spelling import Piece, Speller, pieces
from qwen_openai.prompting.bpe import Bpe


@pytest.fixture(scope="module")
def bpe(qwen2_folder: Path) -> Bpe:
    return Bpe(qwen2_folder / "tokenizer.json")


@pytest.fixture(scope="module")
def end(bpe: Bpe) -> int:
    return next(token for token in sorted(bpe.special) if bpe.piece(token) == b"<|im_end|>")


def _spell(bpe: Bpe, ids: Sequence[int], end: int, most: int = 100) -> list[Piece]:
    speller = Speller(bpe, frozenset({end}), most)
    return [speller.feed(Picked(token)) for token in ids]


def test_a_stop_token_ends_it_and_has_no_text(bpe: Bpe, end: int) -> None:
    hello = bpe.encode("hello")
    made = _spell(bpe, [*hello, end], end)
    assert "".join(piece.text for piece in made) == "hello"
    assert [piece.finish for piece in made] == [None] * len(hello) + ["stop"]
    assert made[-1] == Piece(end, "", "stop")


def test_a_stop_token_completes_a_character_that_was_begun(bpe: Bpe, end: int) -> None:
    half = bpe.encode("é")[:1]
    assert bpe.piece(half[0]) != "é".encode()
    assert _spell(bpe, [*half, end], end) == [Piece(half[0]), Piece(end, "\ufffd", "stop")]


def test_the_last_token_of_the_limit_ends_it_with_all_that_was_held_back(
    bpe: Bpe, end: int
) -> None:
    ids = [*bpe.encode("a"), *bpe.encode("é")[:1]]
    made = _spell(bpe, ids, end, most=len(ids))
    assert made == [Piece(ids[0], "a"), Piece(ids[1], "\ufffd", "length")]


def test_what_is_told_of_a_token(bpe: Bpe, end: int) -> None:
    (a,), (b,) = bpe.encode("a"), bpe.encode("b")
    speller = Speller(bpe, frozenset({end}), 9)
    told = speller.feed(Picked(a, -0.5, ((a, -0.5), (b, -1.5), (end, -2.0)))).logprob
    assert told == TokenLogprob(
        "a",
        b"a",
        -0.5,
        (
            TokenLogprob("a", b"a", -0.5),
            TokenLogprob("b", b"b", -1.5),
            TokenLogprob("<|im_end|>", b"<|im_end|>", -2.0),
        ),
    )
    # The token that ends an answer is no part of it.
    assert speller.feed(Picked(end, -0.1)).logprob is None


def test_a_control_token_in_an_answer_has_neither_text_nor_bytes(bpe: Bpe, end: int) -> None:
    piece = Speller(bpe, frozenset(), 9).feed(Picked(end, -0.1))
    assert piece == Piece(end, "", None, TokenLogprob("", b"", -0.1))


def test_pieces_of_a_prompt_have_no_token_and_closing_closes_the_source(bpe: Bpe, end: int) -> None:
    closed = []

    def tokens() -> Generator[Picked | None, None, None]:
        try:
            yield None
            for token in bpe.encode("hello"):
                yield Picked(token)
        finally:
            closed.append(True)

    answer = pieces(tokens(), bpe, frozenset({end}), 9)
    assert next(answer) == Piece()
    assert next(answer).token is not None
    answer.close()
    assert closed == [True]
