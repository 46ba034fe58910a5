"""The parsers of calls on the corpus, and that no split of a text changes what comes of it."""

import json
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.parsing.bare import BareCalls
from qwen_openai.parsing.calls import CallParser
from qwen_openai.parsing.hermes import hermes_calls
from qwen_openai.parsing.xml import xml_calls
from tests.parsing.corpus import BARE, HERMES, TOOLS, XML, Row
from tests.parsing.reading import Call, read, together

NAMES = [tool.name for tool in TOOLS]


def hermes(parallel: bool = True) -> CallParser:
    return hermes_calls(NAMES, parallel=parallel)


def xml(parallel: bool = True) -> CallParser:
    return xml_calls(TOOLS, parallel=parallel)


def bare(parallel: bool = True) -> CallParser:
    return BareCalls(NAMES, hermes(parallel), parallel=parallel)


CORPUS: list[tuple[Callable[[], CallParser], Row]] = [
    *((hermes, row) for row in HERMES),
    *((xml, row) for row in XML),
    *((bare, row) for row in BARE),
]
ids = [f"{new.__name__}: {row.name}" for new, row in CORPUS]
short = [(new, row) for new, row in CORPUS if len(row.text) < 2000]


@pytest.mark.parametrize(("new", "row"), CORPUS, ids=ids)
def test_what_comes_of_an_output(new: Callable[[], CallParser], row: Row) -> None:
    for cut in (False, True) if row.cut is None else (row.cut,):
        assert read(new(), row.text, cut=cut) == row.found
        step = 1 if len(row.text) < 2000 else 7
        assert read(new(), row.text, range(0, len(row.text), step), cut=cut) == row.found


@given(st.sampled_from(short), st.lists(st.integers(0, 400), max_size=8), st.booleans())
def test_no_split_of_the_corpus_changes_anything(
    case: tuple[Callable[[], CallParser], Row], cuts: list[int], cut: bool
) -> None:
    new, row = case
    assert read(new(), row.text, cuts, cut=cut) == read(new(), row.text, cut=cut)


@pytest.mark.parametrize(("new", "row"), short, ids=[f"{n.__name__}: {r.name}" for n, r in short])
def test_every_beginning_is_the_same_in_one_piece_and_in_characters(
    new: Callable[[], CallParser], row: Row
) -> None:
    for end in range(min(len(row.text), 160)):
        text = row.text[:end]
        for cut in (False, True):
            assert read(new(), text, cut=cut) == read(new(), text, range(end), cut=cut)


bits = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<function=f>", "</function>", "<parameter=s>", "\n", " "),
        *("<parameter=n>", "</parameter>", "\r\n", "<", "</", "<tool", "1", "a", "```", "```json"),
        *('{"name": "f", "arguments": ', '{"name": "g"', '"arguments"', '"name"', '"f"', ":", ","),
        *("{", "}", "[", "]", '"', "\\", "\\ud83d", "\\ude00", "é", "a" * 66, '{"x": 1}', "{}"),
        *('<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>', "}\n</tool_call>"),
        "<function=f>\n<parameter=s>\na\n</parameter>\n</function>",
        *("\t", "\r"),
    ]
)
soups = st.lists(bits, max_size=16).map("".join)


@given(
    soups,
    st.lists(st.integers(0, 250), max_size=8),
    st.sampled_from([hermes, xml, bare]),
    st.booleans(),
    st.booleans(),
)
def test_no_split_of_anything_changes_anything(
    text: str, cuts: list[int], new: Callable[[bool], CallParser], parallel: bool, cut: bool
) -> None:
    whole = read(new(parallel), text, cut=cut)
    assert read(new(parallel), text, cuts, cut=cut) == whole
    assert read(new(parallel), text, range(len(text)), cut=cut) == whole
    calls = [each for each in whole if isinstance(each, Call)]
    assert parallel or len(calls) <= 1
    for each in calls:
        assert each.name in NAMES
        if new is xml and not cut:
            assert isinstance(json.loads(each.arguments), dict)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
arguments = st.dictionaries(st.text(max_size=9), json_values, max_size=5)


@given(arguments, st.booleans(), st.sampled_from([None, 2]), st.lists(st.integers(0, 300)))
def test_any_arguments_come_as_written(
    value: dict[str, object], ascii_only: bool, indent: int | None, cuts: list[int]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    tagged = f'So.\n<tool_call>\n{{"name": "f", "arguments": {text}}}\n</tool_call>'
    assert read(hermes(), tagged, cuts) == ["So.", Call("f", text)]
    fenced = f'```json\n{{"name": "f", "arguments": {text}}}\n```'
    assert read(bare(), fenced, cuts) == [Call("f", text)]


@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\r<`"), max_size=99
    ).filter(lambda text: "\n```" not in text),
    st.lists(st.integers(0, 300)),
)
def test_any_lines_in_a_string_come_as_escapes(value: str, cuts: list[int]) -> None:
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    arguments = f'{{"name": "f", "arguments": {{"s": "{text}"}}}}'
    for new, written in (
        (hermes, f"<tool_call>\n{arguments}\n</tool_call>\nB."),
        (bare, f"```json\n{arguments}\n```\nB."),
    ):
        (found, behind) = read(new(), written, cuts)
        assert isinstance(found, Call)
        assert (json.loads(found.arguments), behind) == ({"s": value}, "B.")


@given(
    st.text().filter(lambda text: "</parameter>" not in text and "</function>" not in text),
    st.lists(st.integers(0, 300)),
)
def test_any_text_is_a_string_parameter(value: str, cuts: list[int]) -> None:
    value = value.encode("utf-8", "replace").decode().rstrip("\r\n")
    text = f"<function=f>\n<parameter=s>\n{value}\n</parameter>\n</function>"
    (found,) = read(xml(), f"<tool_call>\n{text}\n</tool_call>", cuts)
    assert isinstance(found, Call)
    assert json.loads(found.arguments) == {"s": value}


@given(st.text(alphabet="ab <>/{}\n`", max_size=60), st.sampled_from([hermes, xml, bare]))
def test_text_without_calls_is_the_same_text(text: str, new: Callable[[], CallParser]) -> None:
    assert "".join(map(str, read(new(), text))) == text


def test_arguments_go_out_as_they_come() -> None:
    parser = hermes()
    assert parser.feed('<tool_call>\n{"name": "f", "arguments": {"s": "') == []
    assert parser.feed("a" * 57) == []
    (start, first) = parser.feed("b")
    assert (str(start), str(first)) == (
        "CallStart(name='f')",
        f'CallArguments(text=\'{{"s": "{"a" * 57}b\')',
    )
    assert [str(parser.feed(text)) for text in ("c", '"', "}", "}")] == [
        "[CallArguments(text='c')]",
        "[CallArguments(text='\"')]",
        "[CallArguments(text='}')]",
        "[]",
    ]


def test_what_breaks_arguments_may_begin_a_piece() -> None:
    text = f'<tool_call>\n{{"name": "f", "arguments": {{"s": "{"a" * 70}'
    parser = hermes()
    pieces = [*parser.feed(text), *parser.feed("\0} </tool_call>b"), *parser.flush(False)]
    assert together(pieces) == [Call("f", f'{{"s": "{"a" * 70}\0}} '), "b"]


def test_a_string_parameter_goes_out_as_it_comes() -> None:
    parser = xml()
    texts = ["<tool_call>\n<function=f>\n", "<parameter=s>\n", "one", ' "two"', "\n</par", "t"]
    assert [[str(piece) for piece in parser.feed(text)] for text in texts] == [
        [],
        ["CallStart(name='f')", 'CallArguments(text=\'{"s": "\')'],
        ["CallArguments(text='one')"],
        ["CallArguments(text=' \\\\\"two\\\\\"')"],
        [],
        ["CallArguments(text='\\\\n</part')"],
    ]


def test_text_goes_out_as_it_comes() -> None:
    for new in (hermes, xml, bare):
        parser = new()
        fed = ["Hello", " wor", "ld.", "\n", "<", "b> ", "a"]
        out = [parser.feed(text) for text in fed]
        assert out == [["Hello"], [" wor"], ["ld."], [], ["\n"], ["<b>"], [" a"]] or out == [
            ["Hello"], [" wor"], ["ld."], [], [], ["\n<b>"], [" a"]
        ]  # fmt: skip
    parser = bare()
    assert [parser.feed(text) for text in ('{"na', 'me": "A', 'nn"', ", ")] == [
        [], [], ['{"name": "Ann"'], [","]
    ]  # fmt: skip


def test_one_call_is_the_end_where_only_one_is_wanted() -> None:
    one, two = '{"name": "f", "arguments": {}}', "<function=f></function>"
    for new, text in (
        (hermes, f"<tool_call>{one}</tool_call>"),
        (xml, two),
        (bare, one),
        (bare, f"<tool_call>{one}</tool_call>"),
    ):
        parser = new(False)
        parser.feed(text)
        assert parser.ended
        assert parser.feed(f"x{text}") == []
        assert parser.flush(False) == []
        assert parser.calls == 1


HOSTILE = {
    "a": "a",
    "blanks": " ",
    "newlines": "\n",
    "brackets": "<",
    "half tags": "<tool_cal",
    "openers": "<tool_call>",
    "openers with objects": '<tool_call>{"',
    "closers": "</tool_call>",
    "calls": '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>',
    "bare calls": '{"name": "f", "arguments": {"x": 1}}\n',
    "unknown tools": '<tool_call>{"name": "rm", "arguments": {"x": 1}}</tool_call>',
    "functions": "<function=f>",
    "functions and parameters": "<function=f><parameter=s>",
    "parameters": "<parameter=s></parameter>",
    "fences": "```",
    "fences of nothing": "```json\n```\n",
    "braces": "{",
    "lists": "[",
}
OPEN = {
    "nothing": "",
    "arguments": '<tool_call>{"name": "f", "arguments": {"s": "',
    "arguments first": '<tool_call>{"arguments": {"s": "',
    "broken arguments": '<tool_call>{"name": "f", "arguments": {"s": "' + "a" * 70 + "\0",
    "arguments in lines": '<tool_call>{"name": "f", "arguments": {"s": "' + "a" * 70 + "\n",
    "a key": '<tool_call>{"k": [',
    "a value": "<tool_call><function=f><parameter=s>",
    "a number": "<tool_call><function=f><parameter=n>",
    "a bare call": '{"name": "f", "arguments": {"s": "',
    "a call": '{"name": "f", "arguments": {}}',
}


def calls_made(new: Callable[[], CallParser], text: str) -> int:
    """How many functions are called, C's too, to read a text in pieces of a token's length."""
    count = 0

    def counted(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    parser = new()
    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        for start in range(0, len(text), 4):
            parser.feed(text[start : start + 4])
        parser.flush(False)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("new", [hermes, xml, bare])
@pytest.mark.parametrize("opening", OPEN.values(), ids=OPEN)
def test_work_is_linear_in_the_text(new: Callable[[], CallParser], opening: str) -> None:
    for text in HOSTILE.values():
        once = calls_made(new, opening + text * (800 // len(text)))
        twice = calls_made(new, opening + text * (1600 // len(text)))
        assert twice < 2.2 * once + 200


@pytest.mark.parametrize("new", [hermes, xml, bare])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_lot_in_one_piece_is_read(new: Callable[[], CallParser], text: str) -> None:
    """Copying the rest at every step would take minutes."""
    whole = text * (300_000 // len(text))
    parser = new()
    out = [*parser.feed(whole), *parser.flush(False)]
    if not parser.calls:
        assert "".join(map(str, out)) == whole
