"""Stop strings: found across every split, nothing of them let out."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.parsing.stops import StopStrings
from tests.parsing.split import split


def run(stops: tuple[str, ...], pieces: list[str]) -> tuple[str, bool]:
    """All text that comes out, and whether a stop string ended it."""
    machine = StopStrings(stops)
    out = ""
    for piece in pieces:
        out += machine.feed(piece)
        if machine.matched:
            return out, True
    return out + machine.flush(), False


def judge(stops: tuple[str, ...], text: str) -> tuple[str, bool]:
    """What must come out, by the definition: earliest end, then the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@pytest.mark.parametrize(
    ("stops", "text", "out"),
    [
        (("aab",), "aaab", "a"),
        (("aab",), "aaaaxaab!", "aaaax"),
        (("\n\n",), "one\ntwo\n\nthree", "one\ntwo"),
        (("###",), "a ## b", "a ## b"),
        (("abab", "ba"), "xabab", "xa"),
        (("bc", "abc"), "xabc", "x"),
        (("abcd", "bc"), "xabcd", "xa"),
        (("停止",), "请停住,停止。", "请停住,"),
        (("<|im_end|>", "END"), "so EN the END.", "so EN the "),
        (("a",), "a", ""),
        ((), "anything", "anything"),
    ],
)
def test_by_hand(stops: tuple[str, ...], text: str, out: str) -> None:
    expected = (out, out != text)
    assert run(stops, [text]) == expected
    assert run(stops, list(text)) == expected
    for cut in range(len(text)):
        assert run(stops, [text[:cut], "", text[cut:]]) == expected


few_letters = st.text(alphabet="aab<", max_size=24)
some_stops = st.lists(st.text(alphabet="aab<", min_size=1, max_size=5), max_size=4).map(tuple)


@given(some_stops, few_letters, st.lists(st.integers(0, 24), max_size=10))
def test_any_split_gives_what_the_definition_says(
    stops: tuple[str, ...], text: str, cuts: list[int]
) -> None:
    assert run(stops, split(text, cuts)) == judge(stops, text)


@given(some_stops, few_letters)
def test_no_more_is_held_back_than_needed(stops: tuple[str, ...], text: str) -> None:
    machine = StopStrings(stops)
    out = ""
    for position, char in enumerate(text, 1):
        out += machine.feed(char)
        if machine.matched:
            return
        held = text[len(out) : position]
        assert text[:position] == out + held
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_time_is_linear_in_the_text_for_hostile_strings() -> None:
    def seconds(length: int) -> float:
        machine = StopStrings(("a" * 1023 + "b", "ab" * 511 + "c", "a" * 1000, "b"))
        text = "a" * 999 + "c"
        start = time.process_time()
        for _ in range(length):
            machine.feed(text)
        return time.process_time() - start

    # Quadratic matching of 1,000-character strings would take minutes for these 100,000.
    assert seconds(100) < 5
