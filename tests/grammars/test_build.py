"""Rules of every kind against texts that match them and texts that do not."""

import json
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from qwen_openai.errors import InvalidRequest
from qwen_openai.grammars import build
from tests.grammars.texts import is_all_of, matches

HOSTILE = (
    *('"', "\\", '\\"', "}", "{", "%lark {", "%json {}", "\n", "\nanswer: /.*/\n", "// x", "# x"),
    *(
        "a|b",
        "/.*/",
        "<tool_call>",
        "</parameter>",
        "<|im_end|>",
        "\x7f",
        "\x00",
        "\u2028",
        "\u00e9",
    ),
    *("\U0001f600", "@x", " ", "\t", "x\\u0041", ".*", "(?s:.*)", "[a]", "$", "^"),
)


def test_any_object_is_one_in_the_fixed_layout() -> None:
    rules = build.json_object()
    assert matches(rules, '{"a": [1, {"b": null}], "c": "\\u0007é\\n"}')
    for text in ('{"a":1}', '{ "a": 1}', '{"a": 1} ', "[1]", "1", "", '{"a": 1', '{"a": 1}{'):
        assert not matches(rules, text)


def test_a_schema_may_be_true_and_matches_any_value() -> None:
    values: list[object] = [1, "x", None, [1, 2], {"a": {}}]
    for value in values:
        assert matches(build.json_schema(True), json.dumps(value))
    assert not matches(build.json_schema(True), "x")


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("[a-z]+", ("abc",), ("", "ab1", "A")),
        ("a/b\\/c", ("a/b/c",), ("a/b",)),
        ("a\nb", ("a\nb",), ("anb", "a b")),
        ("a\\\nb", ("a\nb",), ("ab",)),
        ("^(yes|no)$", ("yes", "no"), ("yesno",)),
        ("", ("",), ("a",)),
        ("(?i)ok", ("OK", "ok"), ("o",)),
        ("//", ("//",), ("/",)),
        ("#[0-9a-f]{6}", ("#00ff00",), ("#00f",)),
        ('"quoted" \\} \\{', ('"quoted" } {',), ("quoted",)),
    ],
)
def test_a_pattern_matches_from_end_to_end(
    pattern: str, good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    rules = build.regex(pattern)
    assert all(matches(rules, text) for text in good)
    assert not any(matches(rules, text) for text in bad)


@given(st.lists(st.sampled_from(HOSTILE) | st.text(max_size=5), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_choice_is_exactly_one_of_its_values(values: list[str]) -> None:
    rules = build.choice(values)
    for value in values:
        assert matches(rules, value)
        for other in (value + "x", value + '"', "x" + value, value[:-1]):
            assert matches(rules, other) == (other in values)


@pytest.mark.parametrize("pattern", ["\\", "(", "[", "a\\", "*", "(?=x)", "x/\nfoo: /y"])
def test_what_is_no_expression_does_not_become_another_rule(pattern: str) -> None:
    grammar = build.whole(build.regex(pattern), "none")
    made = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
    assert made.is_error() or matches(build.regex(pattern), "x/\nfoo: /y")


class TestCustom:
    def test_lark_keeps_its_names_to_itself(self) -> None:
        own = 'start: "a" answer thought?\nanswer: /b{2}/ "}"\nthought: "!" // {\nTHOUGHT: /x/'
        rules = build.custom(own)
        assert matches(rules, "abb}")
        assert matches(rules, "abb}!")
        assert not matches(rules, "ab}")

    def test_lark_may_have_schemas_and_blanks_of_its_own(self) -> None:
        rules = build.custom('%ignore /[ ]+/\nstart: "set" x\nx: "a" %json {"type": "integer"}')
        assert matches(rules, "set  a12")
        assert not matches(rules, "set x")

    def test_gbnf_is_understood(self) -> None:
        rules = build.custom('root ::= "a" item-list\nitem-list ::= [0-9]+ ("," [0-9]+)*')
        assert matches(rules, "a1,22")
        assert not matches(rules, "a,")

    @pytest.mark.parametrize(
        "text",
        [
            *("", "hello", "root", "root ::= foo", 'root ::= "a', "root ::= [a", "root ::= \\"),
            *('start: "a" }\nfoo: %lark {\nstart: "b"', 'start: "a" {', "x ::= y", "\x00"),
            'root ::= "a"\n' * 300,
            'root ::= "' + "a" * 40_000 + '"',
            'start: "' + "a" * 300_000 + '"',
            "root ::= " + "(" * 3000 + '"a"' + ")" * 3000,
        ],
    )
    def test_what_is_no_grammar_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidRequest, match="Invalid grammar") as caught:
            build.custom(text)
        assert caught.value.param == "structured_outputs.grammar"

    @given(st.text(alphabet='start:"ab{}%/\\#\n |()', max_size=40))
    @settings(max_examples=200, deadline=None)
    def test_no_text_breaks_out_of_its_place(self, text: str) -> None:
        try:
            rules = build.custom(f'start: "a"\n{text}')
        except InvalidRequest:
            return
        nested = LLMatcher(LLTokenizer("byte"), build.whole(rules, "may"), log_level=0)
        alone = LLMatcher(LLTokenizer("byte"), f'start: "a"\n{text}\n', log_level=0)
        assert nested.is_error() == alone.is_error()


class TestWhole:
    rules = build.json_object()

    @pytest.mark.parametrize(
        ("thoughts", "good", "bad"),
        [
            ("none", ("{}",), ("<think>x</think>{}", "\n{}")),
            (
                "open",
                ("x</think>\n\n{}", "</think>{}", "<think>{</think>\n{}"),
                ("{}", "x</think>x"),
            ),
            ("may", ("{}", "<think>\n{}</think>\n\n{}"), ("x</think>{}", "<think>{}", "\n{}")),
        ],
    )
    def test_thoughts_come_first(
        self,
        thoughts: Literal["none", "open", "may"],
        good: tuple[str, ...],
        bad: tuple[str, ...],
    ) -> None:
        grammar = build.whole(self.rules, thoughts)
        assert all(is_all_of(grammar, text) for text in good)
        assert not any(is_all_of(grammar, text) for text in bad)

    @pytest.mark.parametrize("thoughts", ["none", "open", "may"])
    def test_every_kind_of_rules_fits_in(self, thoughts: Literal["none", "open", "may"]) -> None:
        kinds = {
            build.json_object(): "{}",
            build.json_schema({"type": "integer"}): "12",
            build.regex("[a-z]+"): "abc",
            build.choice(["a", "ab"]): "ab",
            build.custom('start: thought\nthought: "x"'): "x",
            build.custom('root ::= "x"'): "x",
        }
        before = {"none": "", "open": "hm <tool_call> \n</think>\n\n", "may": "<think>a</think>\n"}
        for rules, text in kinds.items():
            assert is_all_of(build.whole(rules, thoughts), before[thoughts] + text)
