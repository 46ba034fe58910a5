"""Labels at the beginning of lines, across any split, and not in blocks of code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.adapter import react
from qwen_openai.parsing.labels import Label, Lines
from tests.parsing.split import split


def read(text: str, *, at_start: bool = True, cuts: tuple[int, ...] = ()) -> list[str | Label]:
    """What comes of a text, neighbouring pieces of text joined."""
    lines = Lines(at_start=at_start)
    found: list[str | Label] = []
    pieces = [piece for part in split(text, cuts) for piece in lines.feed(part)]
    for piece in (*pieces, lines.flush()):
        if isinstance(piece, str) and found and isinstance(found[-1], str):
            found[-1] += piece
        elif piece:
            found.append(piece)
    return found


def test_the_writer_has_the_same_labels() -> None:
    assert {label.value for label in Label} == set(react.LABELS)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Thought: a", [Label.THOUGHT, " a"]),
        ("Action: f\nAction Input: {}", [Label.ACTION, " f\n", Label.INPUT, " {}"]),
        ("a\nObservation:", ["a\n", Label.OBSERVATION]),
        ("Final Answer:\nQuestion: x", [Label.ANSWER, "\n", Label.QUESTION, " x"]),
        ("Thought:Thought:", [Label.THOUGHT, "Thought:"]),
        ("Obs", ["Obs"]),
        ("Action In\n", ["Action In\n"]),
        ("As: Action: f\n Action: g\n**Action:**", ["As: Action: f\n Action: g\n**Action:**"]),
        ("```\nAction: f\n```\nAction:", ["```\nAction: f\n```\n", Label.ACTION]),
        ("```py\nAction:\n``\nAction:", ["```py\nAction:\n``\nAction:"]),
        ("````\n```\nAction:\n````\nAction:", ["````\n```\nAction:\n````\n", Label.ACTION]),
        ("```x``` y\nAction:", ["```x``` y\n", Label.ACTION]),
        ("    ```\nAction:", ["    ```\n", Label.ACTION]),
        ("```" + "x" * 90 + "\nAction:", ["```" + "x" * 90 + "\n", Label.ACTION]),
        ("Thought:\n```\nAction:", [Label.THOUGHT, "\n```\nAction:"]),
    ],
)  # fmt: skip
def test_labels(text: str, pieces: list[str | Label]) -> None:
    assert read(text) == pieces
    assert read(text, cuts=tuple(range(len(text)))) == pieces


def test_in_the_middle_of_a_line_there_is_no_label() -> None:
    assert read("Action: f\nAction:", at_start=False) == ["Action: f\n", Label.ACTION]


def test_only_what_may_become_a_label_is_held() -> None:
    lines = Lines()
    assert lines.feed("One\nObserv") == ["One\n"]
    assert lines.feed("er\nAction") == ["Observer\n"]
    assert lines.feed(" In") == []
    assert lines.feed("put:x") == [Label.INPUT, "x"]


bits = st.sampled_from([*(label.value for label in Label), "\n", "```", "`", " ", "Act", "x", "Ob"])


@given(st.lists(bits, max_size=20).map("".join), st.lists(st.integers(0, 80)), st.booleans())
def test_the_split_changes_nothing(text: str, cuts: list[int], at_start: bool) -> None:
    whole = read(text, at_start=at_start)
    assert read(text, at_start=at_start, cuts=tuple(cuts)) == whole
    assert "".join(each if isinstance(each, str) else each.value for each in whole) == text
