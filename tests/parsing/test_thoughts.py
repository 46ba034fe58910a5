"""Thoughts and the answer behind them, wherever the text is split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.parsing.thoughts import Thoughts
from tests.parsing.split import split


def read(text: str, cuts: list[int], *, inside: bool = False) -> tuple[str, str, bool]:
    """The thought, the answer, and whether there was a thought at all."""
    machine = Thoughts(inside=inside)
    pieces = [*(machine.feed(piece) for piece in split(text, cuts)), machine.flush()]
    return (
        "".join(thought for thought, _ in pieces),
        "".join(answer for _, answer in pieces),
        machine.thinking,
    )


OUTPUTS = {
    "thoughts and an answer": ("<think>\na\n\nb\n</think>\n\nc\n", False, "a\n\nb", "c\n"),
    "behind blanks": ("\n <think>a</think>b", False, "a", "b"),
    "none": ("a <think>b</think>", False, "", "a <think>b</think>"),
    "an empty block": ("<think>\n\n</think>\n\na", False, "", "a"),
    "never closed": ("<think>\na\n</thin", False, "a\n</thin", ""),
    "never closed, with a line end": ("<think>\na\n", False, "a", ""),
    "a second block": ("<think>a</think>b<think>c</think>", False, "a", "b<think>c</think>"),
    "a second block at once": ("<think>a</think>\n<think>c", False, "a", "<think>c"),
    "a tag in thoughts": ("<think>a <think> b</think>c", False, "a <think> b", "c"),
    "a call in thoughts": ("<think><tool_call>{}</think>c", False, "<tool_call>{}", "c"),
    "half tags": ("<think>a </thin b <</think></think>", False, "a </thin b <", "</think>"),
    "an indented answer": ("<think>a</think>\n\n  b", False, "a", "  b"),
    "CRLF": ("<think>\r\na\r\n</think>\r\n\r\nb", False, "a", "b"),
    "begun by the prompt": ("a\n</think>\n\nb", True, "a", "b"),
    "begun twice": ("<think>\na</think>b", True, "a", "b"),
    "begun twice, behind a line end": ("\n<think>\na</think>b", True, "a", "b"),
    "begun and never closed": ("a", True, "a", ""),
    "begun and nothing more": ("", True, "", ""),
    "closed at once": ("</think>\n\nb", True, "", "b"),
    "half a tag": ("<thi", False, "", "<thi"),
    "half a tag, begun": ("<thi", True, "<thi", ""),
    "blanks": ("\n ", False, "", "\n "),
    "blanks behind": ("<think>a</think>\n ", False, "a", ""),
    "many blanks first": (" " * 80 + "<think>a", False, "", " " * 80 + "<think>a"),
    "many line ends": ("<think>a" + "\n" * 80 + "</think>b", False, "a" + "\n" * 16, "b"),
    "many blanks behind": ("<think>a</think>\n" + " " * 80 + "\nb", False, "a", " " * 80 + "\nb"),
}


@pytest.mark.parametrize(("text", "inside", "thought", "answer"), OUTPUTS.values(), ids=OUTPUTS)
def test_what_is_thought_and_what_is_answer(
    text: str, inside: bool, thought: str, answer: str
) -> None:
    assert read(text, [], inside=inside)[:2] == (thought, answer)
    assert read(text, list(range(len(text))), inside=inside)[:2] == (thought, answer)


bits = st.sampled_from(
    ["<think>", "</think>", "<", "</", "think>", "\n", " ", "\r\n", "a", " " * 65]
)


@given(st.lists(bits, max_size=12).map("".join), st.lists(st.integers(0, 90)), st.booleans())
def test_the_split_changes_nothing(text: str, cuts: list[int], inside: bool) -> None:
    assert read(text, cuts, inside=inside) == read(text, [], inside=inside)


def test_thoughts_go_out_as_they_come() -> None:
    machine = Thoughts(inside=False)
    fed = ["<think>", "\n", "one", " two\n", "three", "</th", "ink>", "\n\n", "four", "\n"]
    assert [machine.feed(text) for text in fed] == [
        ("", ""), ("", ""), ("one", ""), (" two", ""), ("\nthree", ""), ("", ""), ("", ""),
        ("", ""), ("", "four"), ("", "\n"),
    ]  # fmt: skip
