"""What was seen of a stream, added up."""

from qwen_openai.core import (
    Finish,
    Reasoning,
    Started,
    Text,
    TokenLogprob,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
    Usage,
)
from qwen_openai.responses.fold import Fold


def test_nothing_seen() -> None:
    assert Fold(2).usage == Usage()
    assert [choice.reason for choice in Fold(2).choices] == [None, None]


def test_tokens_add_up_until_the_end_knows_better() -> None:
    fold = Fold(1)
    fold.add(Started(0, 10, 4))
    fold.add(Text(0, "a", 2))
    fold.add(Text(0, "b"))
    assert fold.usage == Usage(10, 3, 4)
    fold.add(Finish(0, "stop", 5, 8))
    assert fold.usage == Usage(10, 5, 8)
    assert fold.usage.total_tokens == 15
    assert fold.choices[0].text == "ab"
    assert fold.choices[0].reason == "stop"


def test_an_end_that_knows_nothing_leaves_the_sum() -> None:
    fold = Fold(1)
    fold.add(Started(0, 10, 4))
    fold.add(Text(0, "a", 2))
    fold.add(Finish(0, "length"))
    assert fold.usage == Usage(10, 2, 4)


def test_the_prompt_counts_once() -> None:
    fold = Fold(3)
    fold.add(Started(2, 10, 9))
    assert fold.usage == Usage(10, 0, 9)
    fold.add(Started(0, 10, 1))
    fold.add(Text(0, "a"))
    fold.add(Text(2, "b", 2))
    assert fold.usage == Usage(10, 3, 1)


def test_calls_are_put_together() -> None:
    fold = Fold(2)
    for event in (
        Text(1, "I look."),
        ToolCallStart(1, 0, "a", "f"),
        ToolCallArguments(1, 0, '{"x"'),
        ToolCallStart(1, 1, "b", "g"),
        ToolCallArguments(1, 0, ": 1}"),
        ToolCallArguments(1, 1, "{}"),
        Finish(1, "tool_calls", 9),
    ):
        fold.add(event)
    choice = fold.choices[1]
    assert list(choice.tool_calls) == [ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}")]
    assert (choice.text, choice.reason, choice.completion_tokens) == ("I look.", "tool_calls", 9)
    assert list(fold.choices[0].tool_calls) == []


def test_thoughts_are_counted_twice_over() -> None:
    fold = Fold(1)
    fold.add(Started(0, 3))
    fold.add(Reasoning(0, "Hm", 2))
    fold.add(Reasoning(0, ".", 0))
    fold.add(Text(0, "4"))
    assert fold.usage == Usage(3, 3, 0, 2)
    assert (fold.choices[0].reasoning, fold.choices[0].text) == ("Hm.", "4")
    fold.add(Finish(0, "stop", 1))
    assert fold.usage == Usage(3, 1, 0, 1), "never more than the whole"


def test_logprobs_come_in_the_order_of_the_tokens() -> None:
    a, b = TokenLogprob("a", b"a", -1.0), TokenLogprob("b", b"b", -2.0)
    fold = Fold(1)
    fold.add(Reasoning(0, "a", 1, (a,)))
    fold.add(Text(0, "b", 1, (b,)))
    assert fold.choices[0].logprobs == [a, b]


def test_each_of_several_prompts_counts_once() -> None:
    fold = Fold(2, prompts=3)
    for index, tokens in ((1, 10), (0, 10), (3, 200), (2, 200)):
        fold.add(Started(index, tokens, tokens // 10))
        fold.add(Text(index, "a"))
    assert fold.usage == Usage(210, 4, 21)
    assert fold.prompts == 3
    assert list(fold.of_prompt(1)) == fold.choices[2:4]
