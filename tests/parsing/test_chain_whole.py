"""The whole chain: thoughts, the guard, stop strings and calls together."""

from dataclasses import dataclass, replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import FinishReason, Job, RawPrompt, Reasoning, Sampling, Text, Tool
from qwen_openai.errors import EngineFailed
from qwen_openai.parsing.chain import Chain
from tests.parsing.corpus import BARE, BARE_TEXT, HERMES, TOOLS, X_TEXT, XML, Row, X
from tests.parsing.reading import Call
from tests.parsing.split import split
from tests.parsing.whole import job, run

HERMES_JOB = job(tools=TOOLS, tool_syntax="hermes")
XML_JOB = job(tools=TOOLS, tool_syntax="xml")
BARE_JOB = job(tools=TOOLS, tool_syntax="hermes", bare_calls=True)


CORPUS = [
    *((HERMES_JOB, row) for row in HERMES),
    *((XML_JOB, row) for row in XML),
    *((BARE_JOB, row) for row in BARE),
]
SHORT = [(job, row) for job, row in CORPUS if len(row.text) < 2000]


@given(
    st.sampled_from(SHORT),
    st.lists(st.integers(0, 300), max_size=8),
    st.sampled_from(["", "<think>\nI <tool_call> look.\n</think>\n\n", "a</think>"]),
    st.sampled_from([(), ("}}",), ("B.", "<tool"), ("a",)]),
    st.booleans(),
)
def test_no_split_changes_what_the_chain_says(
    case: tuple[Job, Row], cuts: list[int], thought: str, stops: tuple[str, ...], include: bool
) -> None:
    base, row = case
    sampling = Sampling(stop=stops, include_stop=include, logprobs=0)
    made = replace(base, thinks=bool(thought), sampling=sampling)
    text = thought + row.text
    in_thought = thought.startswith("a")
    reasons: tuple[FinishReason, ...] = ("stop", "length")
    for reason in reasons:
        one = run(made, [text], reason=reason, in_thought=in_thought)
        for pieces in (split(text, cuts), list(text)):
            other = run(made, pieces, reason=reason, in_thought=in_thought)
            assert (other.reasoning, other.text) == (one.reasoning, one.text)
            assert (other.calls, other.reason) == (one.calls, one.reason)
            seen = "".join(entry.text for entry in other.logprobs)
            assert text.startswith(seen)


LONG = "line one\\nline two of what shall be written into that file, STOP and on"
IN_CALLS = {
    "hermes": '<tool_call>\n{"name": "f", "arguments": {"x": "%s"}}\n</tool_call>',
    "xml": "<tool_call>\n<function=f>\n<parameter=x>\n%s\n</parameter>\n</function>\n</tool_call>",
    "react": 'Action: f\nAction Input: {"x": "%s"}\nObservation:',
    "bare": '{"name": "f", "arguments": {"x": "%s"}}',
}


@given(
    st.sampled_from(sorted(IN_CALLS)),
    st.sampled_from([("STOP",), ("\n",), ("}",), ("</",), ("wr", '"}'), ("Input:",)]),
    st.sampled_from(["STOP", LONG]),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_no_stop_string_cuts_a_call(
    syntax: str, stops: tuple[str, ...], value: str, cuts: list[int]
) -> None:
    written = "hermes" if syntax == "bare" else syntax
    tools = (Tool("f", parameters={"properties": {"x": {"type": "string"}}}),)
    made = job(
        tools=tools,
        tool_syntax=written,
        bare_calls=syntax == "bare",
        sampling=Sampling(stop=stops),
    )
    whole = run(made, split(IN_CALLS[syntax] % value, cuts))
    (call,) = whole.calls
    said = value if syntax == "xml" else value.replace("\\n", "\n")
    assert orjson.loads(call.arguments) == {"x": said}
    assert (whole.text, whole.reason) == ("", "tool_calls")


@pytest.mark.parametrize(
    ("text", "stop", "said"),
    [
        ('a STOP <tool_call>{"name": "f", "arguments": {}}</tool_call>', "STOP", "a "),
        ('a <tool_call>{"name": "f", "arguments": {}}</tool_call>', "<tool_call>", "a "),
        ('<tool_call>{"name": "f", "arguments": {}}</tool_call>b STOP c', "STOP", "b "),
        ('{"nobody": "STOP"}', "STOP", '{"nobody": "'),
    ],
)
def test_stop_strings_around_calls(text: str, stop: str, said: str) -> None:
    made = job(
        tools=(Tool("f"),),
        tool_syntax="hermes",
        bare_calls=True,
        sampling=Sampling(stop=(stop,)),
    )
    for pieces in ([text], list(text)):
        assert run(made, pieces).text.strip() == said.strip()


CALL_IN_XML = "<tool_call>\n<function=f>\n</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"a": "<tool_call><function=f></function></tool_call>"}', 0),
        ('{"a": "say <function=f></function>"}', 0),
        (f'{{"a": 1}}\n{CALL_IN_XML}', 0),
        (f"<tool_call>nothing {CALL_IN_XML}", 0),
        (CALL_IN_XML, 1),
        (f"\n{CALL_IN_XML}\n{CALL_IN_XML}\n", 2),
    ],
)
def test_an_answer_in_a_format_has_no_calls_inside(text: str, calls: int) -> None:
    made = job(tools=(Tool("f"),), tool_syntax="xml", calls_lead=True)
    for pieces in ([text], list(text)):
        whole = run(made, pieces)
        assert len(whole.calls) == calls
        assert whole.text.strip() == ("" if calls else text)


@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize(("made", "row"), SHORT, ids=[row.name for _, row in SHORT])
def test_the_corpus_through_the_chain(made: Job, row: Row, reason: FinishReason) -> None:
    whole = run(made, list(row.text), reason=reason)
    if row.cut in (None, reason == "length"):
        calls = [each for each in row.found if isinstance(each, Call)]
        assert whole.calls == calls
        assert whole.text == "".join(each for each in row.found if isinstance(each, str))
        assert whole.reason == ("tool_calls" if calls and reason == "stop" else reason)


THINKS = job(thinks=True, tools=TOOLS, tool_syntax="hermes", sampling=Sampling(stop=("STOP",)))


@pytest.mark.parametrize(
    ("pieces", "in_thought", "reasoning", "text", "calls"),
    [
        (["<think>", "\n", "a", "\n", "</think>", "\n\n", "b"], False, "a", "b", []),
        (["a STOP ", X_TEXT, "</think>", "\n\n", X_TEXT], True, f"a STOP {X_TEXT}", "", [X]),
        (["a"], True, "a", "", []),
        (["<think>", X_TEXT], False, X_TEXT, "", []),
        (["b", "<think>", "c"], False, "", "b<think>c", []),
        (["<thi"], False, "", "<thi", []),
        (["</think>", "a", " STO", "P b"], True, "", "a ", []),
    ],
)
def test_only_what_is_behind_thoughts_is_an_answer(
    pieces: list[str], in_thought: bool, reasoning: str, text: str, calls: list[Call]
) -> None:
    whole = run(THINKS, pieces, in_thought=in_thought)
    assert (whole.reasoning, whole.text, whole.calls) == (reasoning, text, calls)
    assert whole.tokens == len(pieces)


@pytest.mark.parametrize("text", ["", "\n", " \n", "<", "<think", "\n<th"])
def test_half_a_tag_of_thoughts_is_an_answer(text: str) -> None:
    made = replace(THINKS, sampling=Sampling(stop=("<thus", "\n\n"), logprobs=0))
    reasons: tuple[FinishReason, ...] = ("stop", "length")
    for reason in reasons:
        whole = run(made, list(text), reason=reason)
        assert (whole.text, whole.reasoning, whole.reason) == (text, "", reason)
        assert "".join(entry.text for entry in whole.logprobs) == text
    assert run(replace(made, sampling=Sampling(stop=("<th",))), list(text)).text in (
        text,
        text.partition("<th")[0],
    )


def test_tags_are_text_where_nobody_thinks() -> None:
    assert run(job(), ["<think>", "a", "</think>"]).text == "<think>a</think>"
    assert run(job(), ["a", "</think>", "b"], in_thought=True).reasoning == "a"


def test_tokens_of_thoughts_are_counted() -> None:
    whole = run(THINKS, ["<think>", "\n", "a", "\n", "</think>", "\n\n", "b", "c"])
    assert (whole.reasoning_tokens, whole.tokens) == (6, 8)
    chain = Chain(THINKS)
    out = chain.feed(Text(0, "<think>abc</think>0123456789abcdef01", 9))
    assert out == [Reasoning(0, "abc", 5), Text(0, "0123456789abcdef01", 4)]


@dataclass
class Guard:
    """Takes what is the beginning of a text, and is complete with it."""

    wanted: str
    seen: str = ""

    def feed(self, text: str) -> bool:
        self.seen += text
        return self.wanted.startswith(self.seen)

    @property
    def is_complete(self) -> bool:
        return self.seen == self.wanted


def test_the_guard_sees_the_answer_alone() -> None:
    guard = Guard("yes")
    whole = run(job(thinks=True), ["<think>", "no", "</think>\n\n", "y", "es"], guard=guard)
    assert (whole.text, guard.seen) == ("yes", "yes")


def test_what_breaks_the_format_is_not_sent() -> None:
    chain = Chain(job(), Guard("yes"))
    assert chain.feed(Text(0, "ye")) == [Text(0, "ye")]
    with pytest.raises(EngineFailed, match="left the format"):
        chain.feed(Text(0, "t"))


def test_an_answer_that_ends_too_early_failed() -> None:
    with pytest.raises(EngineFailed, match="ended the answer before"):
        run(job(), ["ye"], guard=Guard("yes"))
    with pytest.raises(EngineFailed, match="ended the answer before"):
        run(THINKS, ["a"], guard=Guard("yes"), in_thought=True)
    with pytest.raises(EngineFailed, match="left the format"):
        run(THINKS, ["<think>a"], guard=Guard("yes"))


def test_what_is_never_closed_is_the_answer_where_the_format_has_it_so() -> None:
    made = job(thinks=True, sampling=Sampling(logprobs=0))
    text = "<think>a\n"
    for pieces in ([text], list(text)):
        whole = run(made, pieces, guard=Guard(text))
        assert (whole.text, whole.reasoning, whole.reason) == (text, "a", "stop")
        assert (whole.tokens, len(whole.logprobs)) == (len(pieces), len(pieces))
        cut = run(made, pieces, guard=Guard(text), reason="length")
        assert (cut.text, cut.reasoning, cut.reason) == ("", "a", "length")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "length"),
        ({"sampling": Sampling(stop_token_ids=(5,))}, "stop"),
        ({"sampling": Sampling(stop=("e",))}, "stop"),
        ({"prompt": RawPrompt("a", suffix="b")}, "stop"),
    ],
)
def test_an_answer_may_be_ended_early_on_purpose(
    changes: dict[str, object], reason: FinishReason
) -> None:
    assert run(job(**changes), ["y", "e"], reason=reason, guard=Guard("yes")).reason == reason


def test_a_stop_string_is_no_part_of_the_format() -> None:
    made = job(sampling=Sampling(stop=("!",)))
    assert run(made, ["ye", "s! and more"], guard=Guard("yes")).text == "yes"


def test_a_stop_string_can_be_sent() -> None:
    made = job(sampling=Sampling(stop=("STOP",), include_stop=True))
    assert run(made, ["a S", "TO", "P b"]).text == "a STOP"


def test_no_stop_string_counts_before_enough_tokens() -> None:
    made = job(sampling=Sampling(stop=("a",), min_tokens=4))
    whole = run(made, list("abababab"))
    assert (whole.text, whole.tokens) == ("abab", 5)
    made = job(thinks=True, sampling=Sampling(stop=("a",), min_tokens=4))
    assert run(made, ["<think>", "a", "</think>", "b", "a", "b"]).text == "b"


def test_calls_finish_as_the_job_says() -> None:
    assert run(HERMES_JOB, [X_TEXT]).reason == "tool_calls"
    assert run(replace(HERMES_JOB, calls_reason="stop"), [X_TEXT]).reason == "stop"
    assert run(HERMES_JOB, [X_TEXT], reason="length").reason == "length"


@pytest.mark.parametrize(
    ("made", "text"),
    [(HERMES_JOB, X_TEXT), (BARE_JOB, BARE_TEXT), (XML_JOB, "<function=f></function>")],
)
def test_one_call_ends_the_answer_where_only_one_is_wanted(made: Job, text: str) -> None:
    whole = run(replace(made, parallel_tool_calls=False), [text, text, "x"])
    assert (len(whole.calls), whole.text, whole.reason) == (1, "", "tool_calls")
    assert whole.tokens == 1


def test_a_continued_answer_is_no_bare_call() -> None:
    assert run(BARE_JOB, [BARE_TEXT]).calls == [X]
    assert run(replace(BARE_JOB, continue_final_message=True), [BARE_TEXT]).text == BARE_TEXT


def test_tags_are_text_without_tools() -> None:
    assert run(replace(HERMES_JOB, tools=()), [X_TEXT]).text == X_TEXT
