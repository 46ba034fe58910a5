"""The checker: every hostile grammar gets its answer, and none takes the next one's."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from qwen_openai.core import Grammar, Tool, ToolSyntax
from qwen_openai.errors import InvalidRequest, Overloaded
from qwen_openai.grammars import build
from qwen_openai.grammars.check import Bounds, Checker, Verdicts
from qwen_openai.grammars.child import environment

TOO_COMPLEX = "it is too complex; ask for less."
GOOD = Grammar(build.json_object(), "response_format")

Schema = dict[str, object]


@pytest.fixture
async def checker() -> AsyncIterator[Checker]:
    made = Checker(bounds=Bounds(timeout=10))
    yield made
    await made.aclose()


def grammar(schema: Schema) -> Grammar:
    return Grammar(build.json_schema(schema), "response_format")


def endless(length: int) -> Schema:
    """A chain of definitions, each of which needs the next."""
    named = {f"a{at}": {"type": "array", "items": {"$ref": f"#/$defs/a{at + 1}"}, "minItems": 1}
             for at in range(length)}  # fmt: skip
    return {"$ref": "#/$defs/a0", "$defs": {**named, f"a{length}": {"type": "null"}}}


def fan_out(depth: int) -> Schema:
    named = {f"a{at}": {"allOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 2} for at in range(depth)}
    return {"$ref": "#/$defs/a0", "$defs": {**named, f"a{depth}": {"type": "object"}}}


def deep(levels: int) -> Schema:
    made: Schema = {"type": "null"}
    for _ in range(levels):
        made = {"type": "array", "items": made, "minItems": 1}
    return made


# What must be refused, and a word that the refusal must have.
REFUSED: dict[str, tuple[Schema, str]] = {
    "itself": ({"$ref": "#"}, "circle"),
    "itself, needed": (
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        "circle",
    ),
    "round in a ring": (
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}},
        },
        "circle",
    ),
    "an endless list": ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "circle"),
    "nothing there": ({"$ref": "#/$defs/a"}, "does not exist"),
    "http": ({"$ref": "http://127.0.0.1:9/schema.json"}, "'\\$ref'"),
    "https, deep": ({"items": {"anyOf": [{"$ref": "https://example.com/#/a"}]}}, "'\\$ref'"),
    "file": ({"$ref": "file:///etc/passwd"}, "'\\$ref'"),
    "no text": ({"$ref": 5}, "'\\$ref'"),
    "many values": ({"enum": [f"v{at}" for at in range(5_001)]}, "'enum'"),
    "look-ahead": ({"type": "string", "pattern": "(?=x)"}, "look-around"),
    "back-reference": ({"type": "string", "pattern": "(a)\\1"}, "regular expression"),
    "parentheses": ({"type": "string", "pattern": "(" * 60_000}, "regular expression"),
    "parentheses, closed": (
        {"type": "string", "pattern": "(" * 30_000 + "a" + ")" * 30_000},
        "regular expression",
    ),
    "no values": ({"enum": []}, ""),
    "no number": ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
    "many items": ({"type": "array", "minItems": 10**9}, "'minItems'"),
    "long text": ({"type": "string", "minLength": 10**9}, "'minLength'"),
    "a chain": (endless(2_000), "too complex"),
    "overlapping oneOf": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "'oneOf'"),
    "anyOf by anyOf": (
        {
            "allOf": [
                {"anyOf": [{"properties": {f"{at}{way}": {"type": "null"}}} for way in range(4)]}
                for at in range(10)
            ]
        },
        "too large",
    ),
    "a huge divisor": ({"type": "integer", "multipleOf": 10**9 + 7}, "fuel"),
}
# What looks as bad, costs nothing and is enforced.
FINE: dict[str, Schema] = {
    "backtracking": {"type": "string", "pattern": "(a+)+$"},
    "maxItems": {"type": "array", "items": {"type": "integer"}, "maxItems": 10**9},
    "maxLength": {"type": "string", "maxLength": 10**9},
    "fan-out of refs": fan_out(30),
    "recursion with an end": {"type": "object", "properties": {"a": {"$ref": "#"}}},
    "as deep as is allowed": deep(60),
    "five thousand values": {"enum": [f"v{at}" for at in range(5_000)]},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_hostile_schema_is_refused_and_the_next_one_is_not(
    checker: Checker, name: str
) -> None:
    schema, word = REFUSED[name]
    with pytest.raises(
        InvalidRequest, match=f"^Invalid schema for response_format: .*{word}"
    ) as caught:
        await checker.check(grammar(schema))
    assert caught.value.param == "response_format"
    assert len(caught.value.message) < 600
    await checker.check(GOOD)


@pytest.mark.parametrize("name", FINE)
async def test_what_costs_nothing_is_accepted(checker: Checker, name: str) -> None:
    await checker.check(grammar(FINE[name]))


@pytest.mark.parametrize(
    ("rules", "param", "begins"),
    [
        (
            build.regex("(?=x)"),
            "structured_outputs.regex",
            "Invalid grammar for structured_outputs",
        ),
        (build.regex("("), "structured_outputs.regex", "Invalid grammar for structured_outputs"),
        (build.custom("start: x"), "structured_outputs.grammar", "Invalid grammar for structured"),
        (build.custom("start: start"), "structured_outputs.grammar", "Invalid grammar for struct"),
        (build.custom("start: <|im_end|>"), "structured_outputs.grammar", "Invalid grammar for s"),
        ("answer: " + "a" * 2**21, "tools", "Invalid schema for tools: it is too complex"),
        ("", "tools", "Invalid schema for tools"),
    ],
)
async def test_other_bad_rules_are_refused_at_their_parameter(
    checker: Checker, rules: str, param: str, begins: str
) -> None:
    with pytest.raises(InvalidRequest, match=begins) as caught:
        await checker.check(Grammar(rules, param))
    assert caught.value.param == param


@pytest.mark.parametrize("syntax", ["hermes", "react"])
async def test_a_function_at_fault_is_named(checker: Checker, syntax: ToolSyntax) -> None:
    pattern: Schema = {"type": "object", "properties": {"a": {"pattern": "(?<=x)"}}}
    tools = [Tool("fine"), Tool("broken", "", pattern, strict=True)]
    rules = build.calls(tools, syntax, required=True, parallel=False)
    with pytest.raises(InvalidRequest, match='function "broken": a regular expression'):
        await checker.check(Grammar(rules, "tools"))


class TestChild:
    async def test_there_is_none_before_the_first_grammar_and_one_for_all(
        self, checker: Checker
    ) -> None:
        assert checker.pid is None
        await checker.check(GOOD)
        first = checker.pid
        await checker.check(grammar({"type": "null"}))
        assert checker.pid == first is not None

    async def test_one_that_was_killed_is_replaced(self, checker: Checker) -> None:
        await checker.check(GOOD)
        first, other = checker.pid, grammar({"type": "null"})
        assert first is not None
        os.kill(first, signal.SIGKILL)
        # Whoever asks before its end is noticed may be told that it was his grammar's fault.
        told = await asyncio.gather(checker.check(other), return_exceptions=True)
        assert str(told[0]) in ("None", "Invalid schema for response_format: " + TOO_COMPLEX)
        await checker.check(other)
        assert checker.pid not in (None, first)

    async def test_one_that_hangs_is_killed(self) -> None:
        checker = Checker(bounds=Bounds(timeout=0.3))
        await checker.check(GOOD)
        first = checker.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(InvalidRequest, match="too complex"):
            await checker.check(grammar({"type": "null"}))
        assert checker.pid is None
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        await checker.aclose()

    async def test_without_memory_the_grammar_is_too_complex(self) -> None:
        checker = Checker(bounds=Bounds(timeout=20, memory=220 * 2**20))
        many = {f"p{at}": {"type": "string"} for at in range(7_000)}
        try:
            with pytest.raises(InvalidRequest, match="too complex"):
                await checker.check(grammar({"type": "object", "properties": many}))
            await checker.check(GOOD)
        finally:
            await checker.aclose()

    async def test_an_idle_one_is_ended(self) -> None:
        checker = Checker(bounds=Bounds(timeout=10, idle=0.01))
        await checker.check(GOOD)
        while checker.pid is not None:  # noqa: ASYNC110  # nothing tells of it but this
            await asyncio.sleep(0.01)
        await checker.check(grammar({"type": "null"}))
        await checker.aclose()
        assert checker.pid is None

    async def test_closing_twice_and_unused_is_fine(self) -> None:
        checker = Checker()
        await checker.aclose()
        await checker.aclose()

    def test_nothing_secret_reaches_it(self) -> None:
        given = environment({"QWEN_OPENAI_API_KEY": "secret", "PATH": "/bin", "OTHER": "x"})
        assert set(given) == {"PATH", "PYTHONPATH"}


class TestMany:
    async def test_all_at_once_get_their_own_verdicts(self, checker: Checker) -> None:
        good = [grammar({"const": number}) for number in range(20)]
        bad = [grammar({"type": "integer", "minimum": 9, "maximum": at}) for at in range(8)]
        results = await asyncio.gather(
            *(checker.check(each) for each in (*good, *bad)), return_exceptions=True
        )
        assert results[:20] == [None] * 20
        assert all(isinstance(result, InvalidRequest) for result in results[20:])

    async def test_the_same_one_is_compiled_once(self, checker: Checker) -> None:
        await asyncio.gather(*(checker.check(GOOD) for _ in range(200)))

    async def test_who_goes_away_takes_nobody_along(self, checker: Checker) -> None:
        leaving = asyncio.create_task(checker.check(GOOD))
        staying = asyncio.create_task(checker.check(GOOD))
        await asyncio.sleep(0)
        leaving.cancel()
        await staying
        with pytest.raises(asyncio.CancelledError):
            await leaving

    async def test_too_many_are_sent_away(self) -> None:
        checker = Checker(bounds=Bounds(timeout=10, queue=2))
        tasks = [asyncio.create_task(checker.check(grammar({"const": at}))) for at in range(3)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:2] == [None, None]
        assert isinstance(results[2], Overloaded)
        await checker.aclose()

    async def test_nobody_waits_for_ever(self) -> None:
        checker = Checker(bounds=Bounds(timeout=10, wait=2))
        await checker.check(GOOD)
        assert checker.pid is not None
        os.kill(checker.pid, signal.SIGSTOP)
        with pytest.raises(Overloaded):
            await checker.check(grammar({"type": "null"}))
        await checker.aclose()


class TestVerdicts:
    def test_they_fit_into_their_bytes(self) -> None:
        kept = Verdicts(10_000)
        for number in range(1_000):
            kept.put(number.to_bytes(32, "big"), "x" * (number % 300))
            assert kept.bytes <= 10_000
        assert 0 < len(kept) < 60

    def test_the_oldest_goes_first_and_use_makes_young(self) -> None:
        kept = Verdicts(600)
        kept.put(b"a", "")
        kept.put(b"b", "bad")
        assert kept.get(b"a") == ""
        kept.put(b"c", "")
        kept.put(b"d", "")
        assert kept.get(b"b") is None
        assert kept.get(b"d") == ""

    def test_the_same_again_costs_nothing_more(self) -> None:
        kept = Verdicts(600)
        kept.put(b"a", "bad")
        before = kept.bytes
        kept.put(b"a", "bad")
        assert kept.bytes == before
