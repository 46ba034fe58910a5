"""The exchange that keeps a caller's text plain: strings only, any tokens, any template."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.errors import InvalidRequest, StartupError
from qwen_openai.prompting.inert import END, Inert

QWEN = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "<|fim_prefix|>")
ODD = ("[INST]", "[/INST]", "<s>", "aba", "ab", "\u2581x", "!", "a a")
TEXT = st.text(st.sampled_from("<>|/[]! abINSTsthinkm_\u2581x\n\u0338é你\U0001f600"), max_size=20)


def tokens_in(inert: Inert, rendered: str) -> list[str]:
    return [token for _, token in inert.split(rendered) if token is not None]


@given(st.sampled_from([QWEN, ODD]), TEXT)
def test_uncover_undoes_cover(tokens: tuple[str, ...], text: str) -> None:
    inert = Inert(tokens, [])
    covered = inert.cover(text)
    assert inert.uncover(covered) == text
    assert len(covered) == len(text)
    assert covered.split() == [inert.cover(word) for word in text.split()]


@given(st.sampled_from([QWEN, ODD]), st.lists(TEXT))
def test_no_token_forms_within_or_across_texts(tokens: tuple[str, ...], texts: list[str]) -> None:
    inert = Inert(tokens, [])
    assert tokens_in(inert, "".join(map(inert.cover, texts))) == []


@given(
    st.sampled_from([QWEN, ODD]),
    st.lists(st.tuples(st.sampled_from(["", "<|", "|>", "<", "a", "[/", "x", " ", "<s>"]), TEXT)),
)
def test_no_token_holds_a_callers_character(
    tokens: tuple[str, ...], pieces: list[tuple[str, str]]
) -> None:
    inert = Inert(tokens, [constant for constant, _ in pieces])
    rendered, whose = "", ""
    for constant, text in pieces:
        rendered += constant + inert.cover(text)
        whose += "t" * len(constant) + "c" * len(text)
    longest_first = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    for match in re.finditer(longest_first, rendered):
        assert "c" not in whose[match.start() : match.end()]


@given(st.sampled_from([QWEN, ODD]), TEXT, st.data())
def test_split_gives_back_every_character(
    tokens: tuple[str, ...], text: str, data: st.DataObject
) -> None:
    own = data.draw(st.sampled_from(tokens))
    inert = Inert(tokens, [own])
    pieces = list(inert.split(f"{own}\n{inert.cover(text)}\n{own}"))
    assert "".join(piece + (token or "") for piece, token in pieces) == f"{own}\n{text}\n{own}"
    assert [token for _, token in pieces if token is not None] == [own, own]


def test_takes_the_longest_token() -> None:
    assert tokens_in(Inert(("ab", "abc"), []), "abcab") == ["abc", "ab"]


def test_exchanges_only_the_ends_where_that_is_enough() -> None:
    assert Inert(QWEN, ["<|im_start|>", "\n<tools>"]).cover("im_end|x") == "im_end|x"
    assert Inert(QWEN, ["<|"]).cover("im_end|x") != "im_end|x"


def test_words_stay_unless_they_go_on_a_token_that_the_template_begins() -> None:
    inert = Inert(QWEN, ["\n<", "</", "tool"])
    for word in ("type", "string", "end", "im_end", "a.b", "t_", "thinker", "$ref"):
        assert inert.cover(word) == word
    for text in ("t", "tool", "tool_call", "think", "_call", "_", "/think", "a think", "|im"):
        assert inert.cover(text) != text


def test_no_tokens_no_exchange() -> None:
    inert = Inert((), ["a"])
    assert list(inert.split(inert.cover("<x>"))) == [("<x>", None)]


@pytest.mark.parametrize("bad", ["\ud800", "a\udc00b", END])
def test_a_lone_surrogate_is_refused_and_named(bad: str) -> None:
    with pytest.raises(InvalidRequest, match=r"U\+D[89A-F]") as caught:
        Inert(QWEN, []).cover("x" + bad)
    caught.value.message.encode()


def test_tokens_of_too_many_characters_are_refused() -> None:
    with pytest.raises(StartupError):
        Inert(tuple(chr(0x4E00 + n) for n in range(1000)), [])
