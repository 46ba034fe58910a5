"""Calls read from ReAct text: what is one, what is not, and that nothing else is lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.parsing.calls import Piece
from qwen_openai.parsing.labels import Label
from qwen_openai.parsing.react import Opening, ReactCalls
from tests.parsing.reading import Call, together
from tests.parsing.reading import read as read_with

F = 'Action: f\nAction Input: {"x": 1}'
CALL = Call("f", '{"x": 1}')
OBSERVED = "\nObservation: invented\nThought: more"


def read(
    text: str,
    *,
    cuts: list[int] | None = None,
    parallel: bool = True,
    opening: Opening = "reply",
) -> list[str | Call]:
    """What comes of a reply, neighbouring texts joined."""
    parser = ReactCalls(["f", "get-it_2"], parallel=parallel, opening=opening)
    return read_with(parser, text, cuts or [])


CALLS: list[tuple[str, str, list[str | Call]]] = [
    ("at the very start", F, [CALL]),
    ("with the result that would be invented", F + OBSERVED, [CALL]),
    ("after blank lines", "\n\n" + F + "\n\n", [CALL]),
    ("after a thought", f"Thought: I look.\n{F}\nObservation:", ["I look.", CALL]),
    ("after an empty thought", f"Thought: \n{F}", [CALL]),
    ("after two thoughts", f"Thought: a\nThought: b\n{F}", ["a\n b", CALL]),
    ("after a thought of paragraphs", f"Thought: a\n\n- b\n{F}", ["a\n\n- b", CALL]),
    ("after prose, before a label", f"Sure.\n\n{F}{OBSERVED}", ["Sure.", CALL]),
    ("after prose and a thought", f"Sure.\nThought: a\n{F}", ["Sure.\na", CALL]),
    ("arguments over lines", 'Action: f\nAction Input:\n{\n "x": [1,\n{}]\n}\n',
     [Call("f", '{\n "x": [1,\n{}]\n}')]),
    ("blanks around the name", "Action:  get-it_2 \r\n\nAction Input:{}", [Call("get-it_2", "{}")]),
    ("hostile strings", 'Action: f\nAction Input: {"a": "}\\"{\\\\", "b": "\\nAction:"}',
     [Call("f", '{"a": "}\\"{\\\\", "b": "\\nAction:"}')]),
    ("several", f"Thought: a\n{F}\n{F}\nThought: b\n{F}\nObservation:",
     ["a", CALL, CALL, "\nb", CALL]),
    ("a failed step behind a call",
     f'{F}\nThought: b\nAction: rm\nAction Input: {{"k": 1}}{OBSERVED}',
     [CALL, 'Thought: b\nAction: rm\nAction Input: {"k": 1}']),
    ("before an invented answer", f"{F}\nThought: I know.\nFinal Answer: 3", [CALL]),
    ("before an invented question", f"{F}\nQuestion: more?", [CALL]),
    ("before half a label", f"Thought: a\n{F}\nObserv", ["a", CALL]),
    ("before half a label, after prose", f"Sure.\n{F}\nObserv", ["Sure.", CALL]),
    ("after a block of code", f"```\nx\n```\n{F}\nObservation:", ["```\nx\n```", CALL]),
    ("after a failed one", f"Thought: a\nAction: g\n{F}", ["Thought: a\nAction: g", CALL]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found"), [row[1:] for row in CALLS], ids=[r[0] for r in CALLS])
def test_what_is_a_call(text: str, found: list[str | Call]) -> None:
    assert read(text) == found
    assert read(text, cuts=list(range(len(text)))) == found
    assert all(isinstance(json.loads(c.arguments), dict) for c in found if isinstance(c, Call))


STAYS_TEXT = {
    "no label": "Hello!\n\nAction is: none\n",
    "prose about it": "Write `Action: f` and then `Action Input: {}`.\n",
    "quoted in code": f"So:\n```\nThought: x\n{F}\nObservation: y\n```\nDone.",
    "indented": 'So:\n Action: f\n Action Input: {"x": 1}\n',
    "after prose, with nothing behind": f"Such a call looks like this:\n{F}",
    "with prose behind": f"{F}\n\nThis calls f.",
    "with prose behind on the line": f"{F} and so on\nThought: b",
    "two objects": f"Thought: a\n{F}{{}}\n",
    "an unknown tool": 'Thought: a\nAction: rm\nAction Input: {"x": 1}',
    "no tool": "Action:\nAction Input: {}",
    "a tool and more": "Action: f now\nAction Input: {}",
    "no input": "Thought: a\nAction: f\n",
    "text for an input": "Thought: a\nAction: f\nAction Input: Paris\nThought: b",
    "a list": "Thought: a\nAction: f\nAction Input: [1]",
    "broken JSON": "Thought: a\nAction: f\nAction Input: {'x': 1}\n",
    "JSON with a line break in a string": 'Action: f\nAction Input: {"x": "a\nb"}',
    "JSON with NaN": 'Action: f\nAction Input: {"x": NaN}',
    "JSON too deep": 'Action: f\nAction Input: {"x": ' + "[" * 5000 + "]" * 5000 + "}",
    "brackets that do not match": 'Action: f\nAction Input: {"x": 1]\n',
    "cut in the name": "Thought: a\nAction: f",
    "cut in the label": "Thought: a\nAction: f\nAction Inp",
    "cut in the input": 'Thought: a\nAction: f\nAction Input: {"x": "Pari',
    "text between": "Thought: a\nAction: f\nwell\nAction Input: {}",
    "a long name": "Action: " + "f" * 500,
    "a thought alone": "Thought: I do not know.",
    "a question": "Question: why?\nI ask.",
    "an answer after prose": "I add.\nFinal Answer: 3\n" + F,
}


@pytest.mark.parametrize("text", STAYS_TEXT.values(), ids=STAYS_TEXT)
def test_what_stays_text_as_written(text: str) -> None:
    assert read(text) == [text]
    assert read(text, cuts=list(range(len(text)))) == [text]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Thought: I know.\nFinal Answer: It is 3.\n", ["It is 3.\n"]),
        ("Final Answer:\n\n 3", ["3"]),
        (f"Thought: a\nFinal Answer: So:\n{F}\nThought: b", [f"So:\n{F}\nThought: b"]),
        ("Thought: a\nFinal Answer: ", []),
        ("Thought: a\nAction: g\nThought: b\nFinal Answer: 3", ["Thought: a\nAction: g\n3"]),
        ("Hello.\nObservation: it rains", ["Hello."]),
        ("Observation: it rains", []),
        ("Thought: a\nObservation: b", ["Thought: a"]),
        (f"Thought: a\nAction: g\nAction Input: {{}}{OBSERVED}",
         ["Thought: a\nAction: g\nAction Input: {}"]),
        ('Action: f\nAction Input: {"x"\nObservation: b', ['Action: f\nAction Input: {"x"']),
        ("", []),
        (" \n", [" \n"]),
    ],
)  # fmt: skip
def test_labels_that_did_their_work_are_not_shown(text: str, found: list[str | Call]) -> None:
    assert read(text) == found
    assert read(text, cuts=list(range(len(text)))) == found


@pytest.mark.parametrize(
    ("opening", "text", "found"),
    [
        ("thought", f" I look.\n{F}", ["I look.", CALL]),
        ("thought", f"\n{F}", [CALL]),
        ("thought", " I now know.\nFinal Answer: 3", ["3"]),
        ("thought", " It is 3.", ["It is 3."]),
        ("thought", "Action: f\nAction Input: {}", ["Action: f\nAction Input: {}"]),
        ("answer", " It is 3.\nThought: b", ["It is 3.\nThought: b"]),
        ("text", " nk.\nAction: f", [" nk.\nAction: f"]),
    ],
)
def test_where_the_prompt_was_left_open(
    opening: Opening, text: str, found: list[str | Call]
) -> None:
    assert read(text, opening=opening) == found
    assert read(text, opening=opening, cuts=list(range(len(text)))) == found


def test_one_call_is_the_end_where_only_one_is_wanted() -> None:
    parser = ReactCalls(["f"], parallel=False)
    assert parser.feed(f"Thought: a\n{F}\n") == []
    assert parser.feed("A") == []
    assert together(parser.feed("ction: f")) == ["a", CALL]
    assert parser.ended
    assert parser.feed("\nx") == []
    assert parser.flush(False) == []
    assert read(f"{F}\n{F}\n", parallel=False) == [CALL]


def test_text_goes_out_as_it_comes() -> None:
    parser = ReactCalls(["f"])
    fed = ["Hello", " wor", "ld.\n", "Obs", "erve: ", "x\nFinal", " word"]
    assert [parser.feed(text) for text in fed] == [
        ["Hello"], [" wor"], ["ld."], [], ["\nObserve:"], [" x"], ["\nFinal word"]
    ]  # fmt: skip
    answer = ReactCalls(["f"])
    assert [answer.feed(text) for text in ("Thought: a", "\nFinal Ans", "wer: 3", ".", "\n")] == [
        [], [], ["3"], ["."], ["\n"]
    ]  # fmt: skip


def test_nothing_of_an_observation_leaks() -> None:
    parser = ReactCalls(["f"])
    out = [piece for char in "Hi\nObservation: x" for piece in parser.feed(char)]
    assert out == ["H", "i"]
    assert parser.ended


bits = st.sampled_from(
    [
        *(label.value for label in Label),
        *("\n", "\n", " ", "f", " f\n", "x", "```", "{", "}", '"', "\\", '{"x": 1}', "{}", "Ob"),
        f"\n{F}\n",
        "\nThought: a\n",
    ]
)
openings: st.SearchStrategy[Opening] = st.sampled_from(["reply", "thought", "answer", "text"])


@given(st.lists(bits, max_size=24).map("".join), st.lists(st.integers(0, 120)), openings)
def test_the_split_changes_nothing(text: str, cuts: list[int], opening: Opening) -> None:
    for parallel in (True, False):
        whole = read(text, parallel=parallel, opening=opening)
        assert read(text, cuts=cuts, parallel=parallel, opening=opening) == whole
        for call in whole:
            if isinstance(call, Call):
                assert call.name == "f"
                assert isinstance(json.loads(call.arguments), dict)
                assert call.arguments in text


@given(st.text(alphabet="aA `{}\n:", max_size=60), st.lists(st.integers(0, 60)))
def test_text_without_labels_is_the_same_text(text: str, cuts: list[int]) -> None:
    assert "".join(map(str, read(text, cuts=cuts))) == text


HOSTILE = {
    "one line": "a" * 1_000_000,
    "blanks": " " * 1_000_000,
    "newlines": "\n" * 1_000_000,
    "labels": "Question:\n" * 100_000,
    "thoughts": "Thought: a\n" * 90_000,
    "failed calls": "Action: f\nAction Input: {}x\n" * 35_000,
    "calls": "Action: f\nAction Input: {}\n" * 35_000,
    "unknown tools": "Action: zz\n" * 90_000,
    "open objects": "Action: f\nAction Input: " + "{" * 1_000_000,
    "backslashes": 'Action: f\nAction Input: {"' + "\\" * 1_000_000,
    "fences": "```\n" * 250_000,
    "almost labels": "Observatio\n" * 90_000,
    "a long name": "Action: " + " " * 1_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("piece", [16, 1_000_000])
def test_a_megabyte_of_anything_is_read(text: str, piece: int) -> None:
    parser = ReactCalls(["f"])
    out: list[Piece] = []
    for start in range(0, len(text), piece):
        out += parser.feed(text[start : start + piece])
    out += parser.flush(False)
    if not parser.calls and not parser.ended:
        assert "".join(map(str, out)) == text
