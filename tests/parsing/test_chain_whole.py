"""The whole chain: thoughts, the guard, stop strings, calls and log probabilities together."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.core import (
    Event,
    Finish,
    FinishReason,
    Job,
    RawPrompt,
    Reasoning,
    Sampling,
    Started,
    Text,
    TokenLogprob,
    Tool,
    ToolCallArguments,
    ToolCallStart,
)
from qwen_openai.errors import EngineFailed
from qwen_openai.parsing.chain import AnswerGuard, Chain
from tests.parsing.corpus import BARE, BARE_TEXT, HERMES, TOOLS, X_TEXT, XML, Row, X
from tests.parsing.reading import Call
from tests.parsing.split import split


def job(**changes: object) -> Job:
    return replace(Job("x", "m", ()), **changes)  # type: ignore[arg-type]  # names fields of Job


HERMES_JOB = job(tools=TOOLS, tool_syntax="hermes")
XML_JOB = job(tools=TOOLS, tool_syntax="xml")
BARE_JOB = job(tools=TOOLS, tool_syntax="hermes", bare_calls=True)


@dataclass
class Whole:
    """A choice's events, added up."""

    reasoning: str = ""
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    reason: FinishReason | None = None
    tokens: int = 0
    reasoning_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def add(self, event: Event) -> None:
        assert self.reason is None, "nothing comes behind a Finish"
        if isinstance(event, Text | Reasoning):
            self.logprobs += event.logprobs
            self.tokens += event.tokens
        if isinstance(event, Text):
            self.text += event.text
        elif isinstance(event, Reasoning):
            self.reasoning += event.text
            self.reasoning_tokens += event.tokens
        elif isinstance(event, ToolCallStart):
            assert event.call == len(self.calls)
            self.calls.append(Call(event.name, ""))
        elif isinstance(event, ToolCallArguments):
            before = self.calls[event.call]
            self.calls[event.call] = Call(before.name, before.arguments + event.text)
        elif isinstance(event, Finish):
            self.reason = event.reason
            self.tokens = event.completion_tokens or self.tokens


def tokens_of(pieces: Sequence[str]) -> list[Text]:
    """A token for each piece, with its entry."""
    return [Text(0, piece, 1, (TokenLogprob(piece, piece.encode(), -0.5),)) for piece in pieces]


def run(
    job: Job,
    pieces: Sequence[str],
    *,
    reason: FinishReason = "stop",
    in_thought: bool = False,
    guard: AnswerGuard | None = None,
) -> Whole:
    chain, whole = Chain(job, guard), Whole()
    fed: list[Event] = [Started(0, 5, in_thought=in_thought), *tokens_of(pieces)]
    for event in (*fed, Finish(0, reason)):
        for out in chain.feed(event):
            whole.add(out)
        if whole.reason is not None:
            break
    return whole


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
        run(THINKS, ["<think>a"], guard=Guard("yes"))


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


LOGPROBS = Sampling(stop=("STOP",), logprobs=1)


def entries(whole: Whole) -> list[str]:
    return [entry.text for entry in whole.logprobs]


def test_entries_of_a_stop_string_do_not_come() -> None:
    whole = run(job(sampling=LOGPROBS), ["a", " S", "TO", "P b", "c"])
    assert (whole.text, entries(whole)) == ("a ", ["a"])
    kept = run(job(sampling=replace(LOGPROBS, include_stop=True)), ["a", " S", "TO", "P", "b"])
    assert (kept.text, entries(kept)) == ("a STOP", ["a", " S", "TO", "P"])


def test_entries_wait_for_their_text() -> None:
    chain = Chain(job(sampling=LOGPROBS))
    one, two, three = tokens_of(["a", "S", "b"])
    assert chain.feed(one) == [one]
    assert chain.feed(two) == [Text(0, "", 1)]
    assert chain.feed(three) == [Text(0, "Sb", 1, two.logprobs + three.logprobs)]
    assert chain.feed(two) == [Text(0, "", 1)]
    assert chain.feed(Finish(0, "length")) == [Text(0, "S", 0, two.logprobs), Finish(0, "length")]


def test_a_part_of_a_character_waits_for_the_others() -> None:
    raw = "停".encode()
    halves = [TokenLogprob("�", raw[:1], -1.0), TokenLogprob("�", raw[1:], -1.0)]
    fed: list[Event] = [Text(0, "", 1, (halves[0],)), Text(0, "停", 1, (halves[1],))]
    stopped, shown = (
        Chain(job(sampling=replace(LOGPROBS, stop=("停",)))),
        Chain(job(sampling=LOGPROBS)),
    )
    assert [stopped.feed(event) for event in fed] == [[Text(0, "", 1)], [Finish(0, "stop", 2)]]
    assert [shown.feed(event) for event in fed] == [
        [Text(0, "", 1)], [Text(0, "停", 1, tuple(halves))]
    ]  # fmt: skip


def test_bytes_that_are_no_text_belong_to_the_whole_piece() -> None:
    broken = TokenLogprob("�", b"\xff", -1.0)
    chain = Chain(job(sampling=LOGPROBS))
    assert chain.feed(Text(0, "�", 1, (broken,))) == [Text(0, "�", 1, (broken,))]
    (after,) = tokens_of(["a"])
    assert chain.feed(after) == [after]


def test_entries_of_thoughts_and_calls_come_in_order() -> None:
    pieces = ["<think>", "a", "</think>", "\n\n", "b", "\n", *X_TEXT.split(" "), "\n"]
    made = replace(THINKS, sampling=LOGPROBS)
    chain = Chain(made)
    out = [event for token in tokens_of(pieces) for event in chain.feed(token)]
    out += chain.feed(Finish(0, "stop"))
    thoughts = [e.text for event in out if isinstance(event, Reasoning) for e in event.logprobs]
    answer = [e.text for event in out if isinstance(event, Text) for e in event.logprobs]
    assert thoughts == pieces[:4]
    assert answer == pieces[4:]
    assert sum(event.tokens for event in out if isinstance(event, Text | Reasoning)) == len(pieces)


@given(st.lists(st.text("aSTOP<", min_size=1, max_size=3), max_size=12), st.booleans())
def test_entries_are_those_of_the_text_that_was_sent(pieces: list[str], include: bool) -> None:
    made = job(sampling=replace(LOGPROBS, include_stop=include))
    whole = run(made, pieces)
    seen = "".join(entries(whole))
    assert whole.text.startswith(seen)
    following = pieces[len(whole.logprobs) : len(whole.logprobs) + 1]
    assert not following or not whole.text.startswith(seen + following[0])


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
