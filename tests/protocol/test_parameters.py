"""The support matrix: it says what the code does, covers the specification, and so do the docs."""

import json
from pathlib import Path

import pytest

from qwen_openai.protocol.chat import ACCEPTS, ChatRequest
from qwen_openai.protocol.parameters import HONOURED, IGNORED, PARAMETERS
from tests.protocol.api_table import COMMAND, DOCUMENT, with_table
from tests.spec import FILE


def test_rows_and_model_agree() -> None:
    fields = set(ChatRequest.model_fields) - {"ignored"}
    assert fields == {row.name for row in (*HONOURED, *IGNORED) if row.accepts}
    assert {row.name for row in HONOURED} <= fields
    assert fields <= ACCEPTS.keys()


def test_no_row_twice() -> None:
    assert len(PARAMETERS) == len(set(PARAMETERS))
    for row in PARAMETERS.values():
        assert row.use in ("refused", "ignored") or not row.harmless
        assert row.use == "refused" or not row.instead
        assert row.use == "honoured" or row.needs is None


def test_what_stands_instead_is_honoured() -> None:
    for row in PARAMETERS.values():
        if row.instead:
            member, _, inner = row.instead.partition(".")
            assert PARAMETERS[member].use == "honoured"
            assert not inner or row.instead in ACCEPTS


def test_what_a_model_lacks() -> None:
    assert PARAMETERS["tools"].use_by({"tools"}) == "honoured"
    assert PARAMETERS["tools"].use_by({"thinking"}) == "refused"
    assert PARAMETERS["enable_thinking"].use_by({"tools"}) == "ignored"
    assert PARAMETERS["seed"].use_by(()) == "honoured"


def test_every_parameter_of_the_specification_has_a_row(shared: Path) -> None:
    schemas = json.loads((shared / FILE).read_text())["components"]["schemas"]

    def properties(schema: dict[str, object]) -> set[str]:
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return properties(schemas[reference.rpartition("/")[2]])
        own = schema.get("properties", {})
        parts = schema.get("allOf", [])
        assert isinstance(own, dict)
        assert isinstance(parts, list)
        return set(own).union(*(properties(part) for part in parts))

    assert properties(schemas["CreateChatCompletionRequest"]) <= PARAMETERS.keys()


def test_the_table_in_the_docs_is_current() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    if with_table(document) != document:
        pytest.fail(f"docs/api.md is stale; run: {COMMAND}")
