"""Grammars of calls in every format: the parsers of the same formats read from what matches exactly
the calls that the tools' schemas allow."""

from collections.abc import Mapping
from typing import Literal

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_openai.core import (
    Event,
    Finish,
    Job,
    Started,
    Text,
    Tool,
    ToolCallArguments,
    ToolCallStart,
    ToolSyntax,
)
from qwen_openai.errors import InvalidRequest
from qwen_openai.grammars import build
from qwen_openai.grammars.guard import Guard
from qwen_openai.parsing.chain import Chain
from tests.grammars.schemas import closed
from tests.grammars.texts import is_all_of, matches

WEATHER = Tool(
    "get_weather",
    "",
    closed({"city": {"type": "string"}, "days": {"type": "integer"}}, "days"),
    True,
)
CLOCK = Tool("clock", "", None, True)
LOOSE = Tool("loose", "", {"type": "object", "properties": {"x": {"not": {}}}})
TOOLS = (WEATHER, CLOCK, LOOSE)
SYNTAXES: tuple[ToolSyntax, ...] = ("hermes", "xml", "react")

PARIS = {
    "hermes": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n'
    "</tool_call>",
    "xml": "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
    "react": 'Thought: hm\nAction: get_weather\nAction Input: {"city": "Paris", "days": 3}\n'
    "Observation:",
}
TIME = {
    "hermes": '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>',
    "xml": "<tool_call>\n<function=clock>\n</function>\n</tool_call>",
    "react": "Thought: hm\nAction: clock\nAction Input: {}\nObservation:",
}


def both(syntax: ToolSyntax) -> str:
    if syntax == "react":
        return PARIS[syntax].removesuffix("Observation:") + TIME[syntax]
    return f"{PARIS[syntax]}\n{TIME[syntax]}"


def read(
    text: str, syntax: ToolSyntax, *, bare: bool = False, tools: tuple[Tool, ...] = TOOLS
) -> tuple[str, list[tuple[str, object]]]:
    """Return the text and the calls that the gateway reads in an answer."""
    job = Job("1", "m", (), tools=tools, tool_syntax=syntax, bare_calls=bare)
    chain = Chain(job)
    fed: tuple[Event, ...] = (Started(0, 1), Text(0, text), Finish(0, "stop"))
    events: list[Event] = []
    for each in fed:
        if not events or not isinstance(events[-1], Finish):
            events += chain.feed(each)
    said = "".join(event.text for event in events if isinstance(event, Text))
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    pieces = [event for event in events if isinstance(event, ToolCallArguments)]
    arguments = [
        "".join(piece.text for piece in pieces if piece.call == start.call) for start in starts
    ]
    return said, [
        (start.name, orjson.loads(each)) for start, each in zip(starts, arguments, strict=True)
    ]


@pytest.mark.parametrize("syntax", SYNTAXES)
class TestEvery:
    def test_required_is_one_or_more_calls_and_nothing_else(self, syntax: ToolSyntax) -> None:
        rules = build.calls(TOOLS, syntax, required=True, parallel=True)
        for text in (PARIS[syntax], TIME[syntax], both(syntax)):
            assert matches(rules, text)
        for text in (
            "",
            "hello",
            PARIS[syntax] + " x",
            PARIS[syntax].replace("city", "town"),
            "{}",
        ):
            assert not matches(rules, text)

    def test_one_alone_is_one(self, syntax: ToolSyntax) -> None:
        rules = build.calls(TOOLS, syntax, required=True, parallel=False)
        assert matches(rules, PARIS[syntax])
        assert not matches(rules, both(syntax))

    def test_sixteen_are_the_most(self, syntax: ToolSyntax) -> None:
        rules = build.calls(TOOLS, syntax, required=True, parallel=True)
        one = TIME[syntax]
        if syntax == "react":
            one = one.removesuffix("Observation:").removeprefix("Thought: hm\n")
            assert matches(rules, "Thought: x\n" + one * 16 + "Observation:")
            assert not matches(rules, "Thought: x\n" + one * 17 + "Observation:")
        else:
            assert matches(rules, "\n".join([one] * 16))
            assert not matches(rules, "\n".join([one] * 17))

    def test_otherwise_text_or_calls(self, syntax: ToolSyntax) -> None:
        rules = build.calls(TOOLS, syntax, required=False, parallel=True)
        for text in ("", "hello\n\nyou", "a <b> <tool", PARIS[syntax], f"I see.\n{both(syntax)}"):
            assert matches(rules, text)
        for text in (
            PARIS[syntax].replace("Paris", "Paris").replace("3", "three"),
            f"I see.\n{PARIS[syntax].replace('get_weather', 'get_wether')}",
            PARIS[syntax][:-1],
        ):
            assert not matches(rules, text)

    @pytest.mark.parametrize("required", [True, False])
    def test_the_parser_reads_what_the_grammar_says(
        self, syntax: ToolSyntax, required: bool
    ) -> None:
        rules = build.calls(TOOLS, syntax, required=required, parallel=True)
        assert matches(rules, both(syntax))
        _, calls = read(both(syntax), syntax)
        assert calls == [("get_weather", {"city": "Paris", "days": 3}), ("clock", {})]

    def test_a_format_or_calls(self, syntax: ToolSyntax) -> None:
        answers = {
            build.json_object(): '{"a": 1}',
            build.json_schema(closed({"n": {"type": "integer"}})): '{"n": 1}',
            build.choice(["yes", "no"]): "yes",
            build.regex("[a-z]+"): "abc",
            build.custom('start: call\ncall: "x"\nPLAIN: "y"'): "x",
        }
        for answer, text in answers.items():
            rules = build.calls(TOOLS, syntax, required=False, parallel=True, answer=answer)
            assert matches(rules, text)
            assert matches(rules, PARIS[syntax])
            assert not matches(rules, "Hello, you")

    @given(st.lists(st.sampled_from([
        *("<tool_call>", "</tool_call>", "<function=get_weather>", "<parameter=city>"),
        "</function>",
        *("</parameter>", "Action:", "Action Input:", "Observation:", "Thought:", "Final Answer:"),
        *(" get_weather", '{"name": "get_weather", "arguments": {}}', "{", "}", '"', "\n", " ", "[",
          "```", "```json", '"name":', '"get_weather"', ",", '"arguments":', "hello", "\u00a0",
          '{"city": "x"}', '{"city": 1}', '"\\u006eame"', "]", "<think>", "3", "\x1c", "\f"),
        *(PARIS[each] for each in SYNTAXES),
    ]), max_size=14), st.booleans())  # fmt: skip
    @settings(max_examples=300, deadline=None)
    def test_no_text_that_matches_is_read_as_a_call_that_does_not(
        self, syntax: ToolSyntax, pieces: list[str], bare: bool
    ) -> None:
        bare = bare and syntax != "react"
        guard = STRICT[syntax, bare].fresh()
        # As far as the grammar lets it: masks would let no engine go any further.
        kept = "".join(piece for piece in pieces if _goes_on(guard, piece))
        if guard.is_complete:
            _, calls = read(kept, syntax, bare=bare, tools=(WEATHER, CLOCK))
            for name, arguments in calls:
                tool = {"get_weather": WEATHER, "clock": CLOCK}[name]
                jsonschema_rs.validate(tool.parameters or closed({}), arguments)


def _goes_on(guard: Guard, piece: str) -> bool:
    """Feed a piece that fits, and only then."""
    before = guard._matcher.deep_copy()
    if guard.feed(piece):
        return True
    guard._matcher, guard._left = before, False
    return False


STRICT: Mapping[tuple[ToolSyntax, bool], Guard] = {
    (syntax, bare): Guard(
        build.calls((WEATHER, CLOCK), syntax, required=False, parallel=True, bare=bare)
    )
    for syntax in SYNTAXES
    for bare in (True, False)
}


class TestBare:
    rules = build.calls(TOOLS, "hermes", required=False, parallel=True, bare=True)

    @pytest.mark.parametrize(
        "text",
        [
            '{"name": "get_weather", "arguments": {"city": "Paris"}}',
            '```json\n{\n  "name": "get_weather",\n  "arguments": {\n    "city": "x"\n  }\n}\n```',
            '\n{"name":"clock","arguments":{}}',
        ],
    )
    def test_one_that_matches_is_a_call(self, text: str) -> None:
        assert matches(self.rules, text)
        said, calls = read(text, "hermes", bare=True)
        assert not said.strip()
        assert len(calls) == 1

    @pytest.mark.parametrize(
        "text",
        [
            '{"name": "get_weather", "arguments": {"town": "Paris"}}',
            '```\n{"name": "get_weather", "arguments": {}}\n```',
            '```json\n[{"name": "get_weather", "arguments": {}}]\n```',
            '\u00a0{"name": "get_weather", "arguments": {}}',
            '{"arguments": {}, "name": "get_weather"}',
            '{"n\\u0061me": "get_weather", "arguments": {}}',
            '{"name": "get\\u005fweather", "arguments": {}}',
        ],
    )
    def test_one_that_does_not_match_is_not_even_text(self, text: str) -> None:
        assert read(text, "hermes", bare=True)[1]
        assert not matches(self.rules, text)

    @pytest.mark.parametrize(
        "text",
        [
            '{"name": "Bob", "age": 3}',
            '```json\n{"name": "get_weather_now"}\n```',
            '{"id": 1}',
            'Use {"name": "get_weather", "arguments": 5} for that.',
            "```python\nprint(1)\n```",
            "[1, 2]",
        ],
    )
    def test_other_json_is_text(self, text: str) -> None:
        assert matches(self.rules, text)
        assert read(text, "hermes", bare=True) == (text, [])


class TestThoughts:
    @pytest.mark.parametrize("syntax", ["hermes", "xml"])
    @pytest.mark.parametrize("thoughts", ["open", "may"])
    def test_they_may_hold_anything(
        self, syntax: ToolSyntax, thoughts: Literal["open", "may"]
    ) -> None:
        rules = build.calls(TOOLS, syntax, required=False, parallel=True, bare=True)
        grammar = build.whole(rules, thoughts)
        opening = "<think>\n" if thoughts == "may" else ""
        for answer in ("hello", PARIS[syntax], both(syntax)):
            text = f"{opening}Maybe <tool_call> or {PARIS[syntax]}?\n</think>\n\n{answer}"
            assert is_all_of(grammar, text)
        assert not is_all_of(grammar, f"{opening}x</think>\n\n{PARIS[syntax]} y")


class TestReact:
    rules = build.calls(TOOLS, "react", required=True, parallel=True)

    @pytest.mark.parametrize(
        ("lead", "opening"),
        [
            ("Thought: I look.\nAction:", "reply"),
            ("\nAction:", "reply"),
            (" I look again.\nAction:", "thought"),
        ],
    )
    def test_it_fits_where_the_prompt_leaves_off(self, lead: str, opening: str) -> None:
        text = f'{lead} get_weather\nAction Input: {{"city": "x"}}\nObservation:'
        assert matches(self.rules, text)
        chain_reads = (
            read(text, "react") if opening == "reply" else read("Thought:" + text, "react")
        )
        assert chain_reads[1] == [("get_weather", {"city": "x"})]

    @pytest.mark.parametrize("line", ["Final Answer: x", "```", "Observation: x", "Question: x"])
    def test_nothing_before_a_call_can_undo_it(self, line: str) -> None:
        assert not matches(self.rules, f"{line}\n{TIME['react'].removeprefix('Thought: hm')}")


class TestXml:
    def test_values_are_held_to_their_schemas(self) -> None:
        parameters = closed(
            {
                "text": {"type": "string"},
                "kind": {"enum": ["a", "b\nc", 7, None]},
                "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]$"},
                "short": {"type": "string", "maxLength": 3},
                "day": {"type": "string", "format": "date"},
                "many": {"type": "array", "items": {"$ref": "#/$defs/n"}},
                "maybe": {"anyOf": [{"type": "string", "minLength": 2}, {"type": "null"}]},
                "flag": {"type": ["boolean", "integer"]},
                "any": {},
            }
        )
        parameters["$defs"] = {"n": {"type": "integer", "maximum": 5}}
        good = {
            "text": ["", "a\nb", '<b>"x"</b>', "\n"],
            "kind": ["a", "b\nc", "7", "null"],
            "code": ["AB1"],
            "short": ["", "abc", "é€😀"],
            "day": ["2024-02-29", "2023-12-31"],
            "many": ["[]", "[1, 5]"],
            "maybe": ["ab", "null"],
            "flag": ["true", "3"],
            "any": ["x", "[1]", ""],
        }
        bad = {
            "text": ["</parameter>"],
            "kind": ["c", "8", '"a"', ""],
            "code": ["AB12", "ab1"],
            "short": ["abcd"],
            "day": ["2024-02-30", "today"],
            "many": ["[6]", "1", "[1,2]"],
            "maybe": ["a", ""],
            "flag": ["True", "x", ""],
            "any": ["</parameter>\n<parameter=x>\n1"],
        }
        tool = Tool("f", "", parameters, True)
        rules = Guard(build.calls([tool], "xml", required=True, parallel=False))
        first = {name: values[0] for name, values in good.items()}
        for name in good:
            for value in good[name]:
                guard, text = rules.fresh(), _xml({**first, name: value})
                assert guard.feed(text), (name, value)
                assert guard.is_complete
                [(_, arguments)] = read(text, "xml", tools=(tool,))[1]
                jsonschema_rs.validate(parameters, arguments)
            for value in bad[name]:
                assert not rules.fresh().feed(_xml({**first, name: value})), (name, value)

    def test_what_is_required_must_stand_and_the_rest_may(self) -> None:
        tool = Tool("f", "", closed({"a": {}, "b": {}, "c": {}}, "a", "c"), True)
        rules = build.calls([tool], "xml", required=True, parallel=False)
        assert matches(rules, _xml({"b": "x"}))
        assert matches(rules, _xml({"a": "", "b": "x", "c": "y"}))
        for wrong in ({"a": "x"}, {"b": "x", "a": "y"}, {"b": "x", "d": "y"}):
            assert not matches(rules, _xml(wrong))

    def test_without_properties_any_name_may_stand(self) -> None:
        rules = build.calls(
            [Tool("f", "", {"type": "object"})], "xml", required=True, parallel=False
        )
        assert matches(rules, _xml({}))
        assert matches(rules, _xml({"what": "a\n<b>", "x-y.z": "1"}))
        assert not matches(rules, _xml({"a>b": "x"}))

    @pytest.mark.parametrize(
        "properties",
        [
            {"a>b": {"type": "string"}},
            {"a": {"$ref": "#/$defs/none"}},
            {"a": {"enum": []}},
            {"a": {"$ref": "#/properties/a"}},
            {"a": {"$ref": "#/$defs/n", "minimum": 3}},
            {"a": False},
            {"a": {"enum": ["</parameter>"]}},
        ],
    )
    def test_what_tags_cannot_hold_is_refused_if_strict(
        self, properties: dict[str, object]
    ) -> None:
        parameters = {**closed(properties), "$defs": {"n": {"type": "integer"}}}
        with pytest.raises(InvalidRequest, match="Invalid schema for function 'f'") as caught:
            build.calls([Tool("f", "", parameters, True)], "xml", required=True, parallel=False)
        assert caught.value.param == "tools"


def _xml(values: Mapping[str, str]) -> str:
    parameters = "".join(f"<parameter={n}>\n{v}\n</parameter>\n" for n, v in values.items())
    return f"<tool_call>\n<function=f>\n{parameters}</function>\n</tool_call>"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_strict_schema_that_cannot_be_enforced_is_refused_by_name(syntax: ToolSyntax) -> None:
    tool = Tool("f", "", {"type": "object", "properties": {"a": {"not": {}}}}, True)
    with pytest.raises(InvalidRequest, match="function 'f': 'not'") as caught:
        build.calls([tool], syntax, required=False, parallel=True)
    assert caught.value.param == "tools"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_loose_schema_that_cannot_be_enforced_is_any_object(syntax: ToolSyntax) -> None:
    parameters: dict[str, object] = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "(?=x)"}},
    }
    tool = Tool("f", "", parameters)
    rules = build.calls([tool], syntax, required=True, parallel=False)
    assert not Guard(rules).is_complete
