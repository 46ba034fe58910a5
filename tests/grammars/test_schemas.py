"""The corpus: every schema and tool in it passes the checker, and is what it says."""

from collections.abc import AsyncIterator

import jsonschema_rs
import orjson
import pytest

from qwen_openai.core import Grammar, Tool, ToolSyntax
from qwen_openai.grammars import build
from qwen_openai.grammars.check import Checker
from qwen_openai.grammars.guard import Guard
from tests.grammars import schemas


@pytest.fixture
async def checker() -> AsyncIterator[Checker]:
    made = Checker(timeout=20)
    yield made
    await made.aclose()


async def test_two_hundred_schemas_are_accepted(checker: Checker) -> None:
    made = schemas.schemas()
    assert len(made) == schemas.COUNT
    assert len({orjson.dumps(each) for each in made}) > 150
    for schema in made:
        jsonschema_rs.meta.validate(schema)
        await checker.check(Grammar(build.json_schema(schema), "response_format"))


@pytest.mark.parametrize("syntax", ["hermes", "xml", "react"])
@pytest.mark.parametrize("required", [True, False])
async def test_fifty_tools_are_accepted(
    checker: Checker, syntax: ToolSyntax, required: bool
) -> None:
    made = schemas.tools()
    assert len(made) == len({tool.name for tool in made}) == schemas.TOOLS
    assert not any(_refusal(tool, syntax) for tool in made)
    for tool in made:
        rules = build.calls([tool], syntax, required=required, parallel=True, bare=not required)
        await checker.check(Grammar(rules, "tools"))
    rules = build.calls(made, syntax, required=required, parallel=True, bare=not required)
    await checker.check(Grammar(rules, "tools"))


def _refusal(tool: Tool, syntax: ToolSyntax) -> str:
    return "" if build.calls([tool], syntax, required=True, parallel=False) else "refused"


def test_both_draws_are_the_same_every_time() -> None:
    assert schemas.schemas() == schemas.schemas()
    assert schemas.tools() == schemas.tools()


def test_the_constant_of_the_corpus_is_what_it_allows() -> None:
    const = schemas.HAND_WRITTEN[2]
    guard = Guard(build.json_schema(const))
    assert guard.feed(orjson.dumps(const["const"]).decode())
    assert guard.is_complete
